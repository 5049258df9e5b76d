"""Keys at the door of the routes: who is let in, to what, and what the others hear."""

import json
import os
from pathlib import Path

import pytest
from tests.serve.edge_client import EdgeClient

from raylora.config.key_file import ApiKey, add_key, remove_key
from raylora.config.serve_spec import ServeSpec
from raylora.errors import InvalidConfig, NotFound
from raylora.serve.edge.edge import Edge
from raylora.serve.edge.keys import FileKeyring


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def make(file: Path):
    """Add a key to the file; the secret."""

    def add(name: str, **fields) -> str:
        return add_key(file, lambda sha256: ApiKey(id=name, sha256=sha256, **fields))[1]

    return add


@pytest.fixture
def client(endpoint, file: Path, make) -> EdgeClient:
    make("first")
    return EdgeClient(endpoint, Edge.of(ServeSpec(keys=str(file))))


def name_of(ring: FileKeyring, secret: str) -> str | None:
    key = ring.find(secret)
    return None if key is None else key.id


def routes(client: EdgeClient) -> list[tuple[str, str]]:
    paths = client.app.openapi()["paths"]
    listed = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    hidden = [
        ("GET", path) for path in ("/metrics", "/docs", "/openapi.json", "/redoc", "/nothing")
    ]
    return listed + hidden


@pytest.mark.parametrize("key", [None, "", "rl-wrong", "x" * 5000])
def test_no_route_but_health_and_the_page_answers_without_a_key(client, key):
    client.key = key
    open_routes = {"/healthz"}
    found = routes(client)
    assert len(found) > 9
    for method, path in found:
        answer = client.ask(method, path, json={})
        if path in open_routes:
            assert answer.status_code == 200
            continue
        assert answer.status_code == 401, (method, path)
        error = answer.json()["error"]
        assert (error["code"], error["type"]) == ("invalid_api_key", "invalid_request_error")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/").status_code == 200


def test_a_wrong_method_or_scheme_opens_nothing(client, make):
    secret = make("mine")
    assert client.ask("POST", "/healthz").status_code == 401
    assert client.ask("HEAD", "/").status_code == 401
    assert client.get("/v1/models", headers={"Authorization": f"Basic {secret}"}).is_error
    assert client.get("/v1/models", headers={"Authorization": f"bearer {secret}"}).is_success


def test_a_key_is_answered_like_anybody_without_keys(client, make):
    client.key = make("mine")
    answer = client.chat("home")
    assert answer.status_code == 200
    assert answer.headers["x-raylora-adapter"] == "home@2"
    assert {card["id"] for card in client.get("/v1/models").json()["data"]} >= {"tiny", "home"}


def test_keys_made_or_removed_later_count_without_a_restart(endpoint, file, make):
    old = make("old")
    ring = FileKeyring(file)
    new = make("new")
    assert name_of(ring, new) == "new"
    remove_key(file, "old")
    assert ring.find(old) is None
    assert name_of(ring, new) == "new"


def test_a_broken_file_leaves_the_keys_and_a_missing_one_has_none(file, make, caplog):
    secret = make("mine")
    ring = FileKeyring(file)
    text = file.read_text()
    file.write_text(text.replace("sha256", "sha25"))
    assert name_of(ring, secret) == "mine"
    assert "keys.0.sha25" in caplog.text
    file.unlink()
    assert ring.find(secret) is None
    file.write_text(text)
    assert name_of(ring, secret) == "mine"


def test_a_replica_without_its_key_file_does_not_start(file):
    with pytest.raises(NotFound, match="no key file"):
        Edge.of(ServeSpec(keys=str(file)))
    file.write_text("[]")
    with pytest.raises(InvalidConfig, match="is no key file"):
        Edge.of(ServeSpec(keys=str(file)))


def test_a_list_of_adapters_hides_the_others(client, make):
    client.key = make("mine", adapters=("hom*",))
    assert client.chat("home@3").status_code == 200
    assert [card["id"] for card in client.get("/v1/models").json()["data"]] == ["home", "home@3"]
    hidden, missing = client.chat("sums"), client.chat("summs")
    assert hidden.status_code == missing.status_code == 404
    assert hidden.text.replace("sums", "X") == missing.text.replace("summs", "X")
    assert client.chat("tiny").status_code == 404
    assert client.get("/v1/models/sums").status_code == 404
    assert client.get("/v1/adapters/sums").status_code == 404


def test_what_is_missing_behind_a_pattern_names_no_neighbour_that_is_hidden(client, make):
    client.key = make("mine", adapters=("home2", "sumz"))
    for model in ("home2", "sumz"):
        error = client.chat(model).json()["error"]
        assert error["code"] == "model_not_found"
        assert not {"home", "sums", "home@2"} & set(error["message"].replace("'", " ").split())


def test_the_list_of_loaded_adapters_is_that_of_the_key(client, make):
    client.key = make("all")
    client.chat("home")
    client.chat("sums")
    client.key = make("some", adapters=("sums",))
    assert [each["id"] for each in client.get("/v1/adapters").json()["data"]] == ["sums@1"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("POST", "/v1/adapters"),
        ("DELETE", "/v1/adapters/home@2"),
        ("POST", "/v1/load_lora_adapter"),
        ("GET", "/v1/modelsandmore"),
    ],
)
def test_what_changes_or_watches_the_endpoint_needs_an_admin_key(client, make, method, path):
    client.key = make("plain")
    answer = client.ask(method, path, json={})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "insufficient_permissions"
    client.key = make("boss", admin=True)
    assert client.ask(method, path, json={}).status_code not in (401, 403)


def test_requests_beyond_a_limit_are_429_with_the_time_to_wait(client, make):
    client.key = make("mine", requests_per_minute=3)
    answers = [client.chat(max_tokens=1) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
    error = answers[-1].json()["error"]
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
    assert client.get("/v1/models").status_code == 200


def test_tokens_are_reserved_and_settled(client, make, endpoint):
    client.key = make("mine", tokens_per_minute=200)
    prompt = client.chat(max_tokens=5).json()["usage"]["prompt_tokens"]
    # 5 were generated each time; room for another request is what counts, not room for 256 more.
    spent = prompt + 5
    codes = [client.chat(max_tokens=5).status_code for _ in range(200 // spent)]
    assert codes[-1] == 429
    assert codes.count(200) == 200 // spent - 1
    refused = client.chat(max_tokens=500)
    assert refused.status_code == 429
    assert refused.headers["x-should-retry"] == "false"
    assert "max_tokens" in refused.json()["error"]["message"]
    assert [each.in_use for each in endpoint.residency.residents] == []


def test_keys_stay_out_of_answers_and_logs(client, make, endpoint, file, tmp_path):
    log = tmp_path / "access.jsonl"
    secret = make("mine", adapters=("home",))
    logged = EdgeClient(endpoint, Edge.of(ServeSpec(keys=str(file), access_log=str(log))))
    logged.key = secret
    texts = [logged.chat(model).text for model in ("home", "sums")] + [
        logged.get("/v1/models").text
    ]
    logged.key = secret + "x"
    texts.append(logged.chat("home").text)
    assert all(secret not in text for text in [*texts, log.read_text(), file.read_text()])
    assert [json.loads(line).get("key") for line in log.read_text().splitlines()] == [
        *["mine"] * 3,
        None,
    ]


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("[::1]:8000", True),
        ("evil.example:8000", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_without_keys_only_names_of_this_machine_are_answered(endpoint, host, allowed):
    client = EdgeClient(endpoint, Edge.of(ServeSpec()))
    answer = client.get("/v1/models", headers={"Host": host})
    assert answer.status_code == (200 if allowed else 403)
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_the_key_file_is_its_owners_alone(file, make):
    make("mine")
    assert oct(os.stat(file).st_mode & 0o777) == "0o600"
