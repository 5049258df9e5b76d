"""The access log: one line for each request, with what became of it."""

import json
from pathlib import Path

import pytest
from tests.serve.edge_client import EdgeClient

from raylora.config.serve_spec import ServeSpec
from raylora.serve.edge.edge import Edge


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "access.jsonl"


@pytest.fixture
def client(endpoint, file: Path) -> EdgeClient:
    return EdgeClient(endpoint, Edge.of(ServeSpec(access_log=str(file))), "http://localhost")


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_an_answer_is_a_line_with_its_version_tokens_and_times(client, file):
    used = client.chat("home@champion", n=2).json()["usage"]
    [line] = lines(file)
    assert line["time"].endswith("+00:00")
    assert (line["method"], line["path"]) == ("POST", "/v1/chat/completions")
    assert (line["model"], line["adapter"]) == ("home@champion", "home@2")
    assert (line["key"], line["status"]) == ("anyone", 200)
    assert line["prompt_tokens"] == used["prompt_tokens"]
    assert line["completion_tokens"] == used["completion_tokens"]
    assert line["finish_reasons"] == ["stop", "stop"]
    assert 0 < line["first_token_s"] <= line["total_s"]
    assert 0 < line["token_s"] < line["total_s"]
    assert "stream" not in line


def test_a_request_is_found_by_the_id_that_its_answer_has(client, file):
    own = client.chat("tiny")
    client.chat("tiny", headers={"x-request-id": "abc-1"})
    client.chat("tiny", headers={"x-request-id": 'forged"\n{}'.replace("\n", " ")})
    ids = [line["request_id"] for line in lines(file)]
    assert ids[0] == own.headers["x-request-id"]
    assert ids[1] == "abc-1"
    assert ids[2].isalnum()


def test_failures_have_a_line_too_and_health_has_none(client, file, engine):
    client.get("/healthz")
    client.chat("nobody" * 100)
    client.ask("POST", "/v1/completions", content=b"{")
    client.get("/nothing")
    engine.fails_after = 3
    client.chat("sums", stream=True)
    found = [(line["status"], line.get("adapter")) for line in lines(file)]
    assert found == [(404, None), (400, None), (404, None), (500, "sums@1")]
    assert len(lines(file)[0]["model"]) == 128
    assert lines(file)[3]["stream"] is True


def test_what_was_said_is_not_logged(client, file):
    client.chat("tiny", messages=[{"role": "user", "content": "my secret"}], user="me")
    client.get("/v1/models?token=secret")
    assert "secret" not in file.read_text()


def test_a_rotated_file_is_followed(client, file):
    client.chat("tiny")
    file.rename(file.with_suffix(".1"))
    client.chat("tiny")
    assert len(lines(file)) == len(lines(file.with_suffix(".1"))) == 1


def test_without_a_file_lines_go_to_the_replicas_log(endpoint, capsys):
    EdgeClient(endpoint, Edge.of(ServeSpec()), "http://localhost").get("/v1/models")
    assert json.loads(capsys.readouterr().err)["path"] == "/v1/models"
