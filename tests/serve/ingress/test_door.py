"""The door before the replicas: what it lets through, refuses and writes down."""

import json
from asyncio import run
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse

from raylora.config.key_file import ApiKey, add_key
from raylora.config.serve_spec import ServeSpec
from raylora.serve.ingress.door import behind_door
from raylora.serve.ingress.refusals import Refusals


class House:
    """Says which request it was, and counts them."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(scope["path"])
        told = {"id": Request(scope).headers["x-request-id"]}
        await JSONResponse(told)(scope, receive, send)


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def refusals() -> Refusals:
    return Refusals()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "access.jsonl"


@pytest.fixture
def ask(house: House, tmp_path: Path, log: Path, refusals: Refusals):
    """POST to a route with a key of two requests a minute, or with the headers given."""
    file = tmp_path / "keys.json"
    _, secret = add_key(
        file, lambda sha256: ApiKey(id="mine", sha256=sha256, requests_per_minute=2)
    )
    app = behind_door(house, ServeSpec(keys=str(file), access_log=str(log)), refusals)

    async def send(path: str, headers: dict[str, str]) -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.post(path, headers=headers, content=b"x")

    def post(path: str = "/v1/completions", **headers: str) -> httpx.Response:
        return run(send(path, {"Authorization": f"Bearer {secret}"} | headers))

    return post


def test_who_has_no_key_is_refused_before_anybody_is_asked(ask, house, log):
    assert ask(Authorization="Bearer wrong").status_code == 401
    assert ask("/v1/adapters").status_code == 403
    assert house.seen == []
    lines = [json.loads(text) for text in log.read_text("utf-8").splitlines()]
    assert [(line["status"], line.get("key")) for line in lines] == [(401, None), (403, "mine")]


def test_requests_for_answers_count_and_others_do_not(ask, house):
    codes = [ask().status_code for _ in range(3)]
    assert codes == [200, 200, 429]
    assert house.seen == ["/v1/completions"] * 2


def test_what_is_let_through_is_for_the_replica_to_write_down_under_the_same_id(ask, log):
    answer = ask()
    assert answer.json()["id"] == answer.headers["x-request-id"]
    own = ask(**{"x-request-id": "abc"})
    assert own.json()["id"] == "abc"
    assert log.read_text("utf-8") == ""


def test_who_is_refused_is_counted_and_who_is_let_in_is_not(ask, refusals):
    for headers in ({"Authorization": "Bearer wrong"}, {}, {}, {}):
        ask(**headers)
    ask("/v1/adapters")
    found = dict(line.rsplit(" ", 1) for line in refusals.text().splitlines() if line[0] != "#")
    assert found['raylora_requests_total{adapter="",status="401"}'] == "1.0"
    assert found['raylora_requests_total{adapter="",status="429"}'] == "1.0"
    assert found['raylora_refused_total{status="403"}'] == "1.0"
    assert not any('"200"' in series for series in found)
