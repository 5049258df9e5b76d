"""/v1/adapters and vLLM's load and unload routes."""

import asyncio

import httpx
import pytest

from raylora.serve.http.openai_api import create_app


@pytest.fixture
def ask(endpoint):
    """One request to the endpoint's routes; all of a test share their state."""

    def send(method: str, path: str, body=None) -> httpx.Response:
        async def go() -> httpx.Response:
            transport = httpx.ASGITransport(create_app(endpoint), raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://endpoint"
            ) as client:
                return await client.request(method, path, json=body)

        return asyncio.run(go())

    return send


@pytest.fixture
def listed(ask):
    def entries() -> dict:
        return {entry["id"]: entry for entry in ask("GET", "/v1/adapters").json()["data"]}

    return entries


def test_what_is_registered_is_known_before_it_is_loaded(ask, listed):
    ask("GET", "/v1/models")
    states = {key: (entry["state"], entry["tier"]) for key, entry in listed().items()}
    assert states == {"home@2": ("known", None), "sums@1": ("known", None)}


def test_loading_pins_and_unloading_lets_go(ask, listed):
    loaded = ask("POST", "/v1/adapters", {"model": "home@champion"}).json()
    assert (loaded["id"], loaded["state"], loaded["tier"]) == ("home@2", "ready", "device")
    assert (loaded["pinned"], loaded["rank"], loaded["aliases"]) == (True, 8, ["champion"])
    assert not ask("POST", "/v1/adapters", {"model": "sums", "pin": False}).json()["pinned"]
    assert listed()["home@2"]["requests"] == 1
    assert ask("DELETE", "/v1/adapters/home@champion").json()["id"] == "home@2"
    assert listed()["home@2"]["state"] == "known"
    assert ask("DELETE", "/v1/adapters/home@2").status_code == 404


def test_a_run_is_loaded_by_its_id(ask, registry):
    loaded = ask("POST", "/v1/adapters", {"model": "run:r-1"}).json()
    assert (loaded["id"], loaded["version"]) == ("run:r-1", None)
    assert registry.fetched == ["run:r-1"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "nobody"}, 404, "model_not_found"),
        ({"model": "../x"}, 404, "model_not_found"),
        ({"model": "tiny"}, 404, "model_not_found"),
        ({"model": "home", "rank": 3}, 400, "extra_forbidden"),
        ({}, 400, "missing"),
    ],
)
def test_loading_what_cannot_be_is_refused_in_openais_shape(ask, body, status, code):
    answer = ask("POST", "/v1/adapters", body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_bad_version_is_refused_with_the_reason_and_listed(ask, listed, registry):
    registry.broken.add("home@2")
    answer = ask("POST", "/v1/adapters", {"model": "home"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "adapter_refused"
    assert listed()["home@2"]["state"] == "failed"
    assert "another base" in listed()["home@2"]["error"]


def test_vllms_routes_load_and_unload_a_folder(ask, folders):
    (folders.root / "mine").mkdir()
    body = {"lora_name": "mine", "lora_path": str(folders.root / "mine")}
    assert ask("POST", "/v1/load_lora_adapter", body).status_code == 200
    assert "mine" in [card["id"] for card in ask("GET", "/v1/models").json()["data"]]
    hello = {"model": "mine", "messages": [{"role": "user", "content": "hi"}]}
    answer = ask("POST", "/v1/chat/completions", hello)
    assert answer.headers["x-raylora-adapter"].startswith("mine@sha-")
    assert ask("POST", "/v1/unload_lora_adapter", {"lora_name": "mine"}).status_code == 200
    assert ask("POST", "/v1/chat/completions", hello).status_code == 404
    again = ask("POST", "/v1/unload_lora_adapter", {"lora_name": "mine"})
    assert (again.status_code, again.json()["error"]["param"]) == (404, "lora_name")


def test_a_folder_outside_the_allowed_one_is_refused(ask, tmp_path):
    answer = ask("POST", "/v1/load_lora_adapter", {"lora_name": "m", "lora_path": str(tmp_path)})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "adapter_refused")
    assert "adapters_root" in answer.json()["error"]["message"]
