"""The ingress over real connections to replicas in the same process; those that die just close."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tests.serve.ingress.backends import BODY, Backend, Client, ingress, run

from raylora.serve.edge.observer import Observer
from raylora.serve.ingress import relay as relay_module
from raylora.serve.ingress import replicas as replicas_module
from raylora.serve.ingress.link import Address
from raylora.serve.ingress.relay import Relay
from raylora.serve.ingress.replicas import Replicas


def test_answers_pass_through_with_status_headers_and_body():
    async def work() -> None:
        one = Backend("one")
        async with ingress(one) as (client, _):
            headers = {"authorization": "Bearer k", "x-request-timeout-seconds": "0"}
            answer = await client.post("/whole", json=BODY, headers=headers)
            assert answer.json() == {"by": "one", "model": "home"}
            assert answer.headers["x-own"] == "1"
            assert one.seen[0]["authorization"] == "Bearer k"
            assert "x-request-timeout-seconds" not in one.seen[0]
            assert (await client.post("/stream", json=BODY)).text.endswith("data: [DONE]\n\n")
            assert (await client.post("/nothing", json=BODY)).status_code == 404
            many = await asyncio.gather(*(client.post("/whole", json=BODY) for _ in range(8)))
            assert {each.status_code for each in many} == {200}

    run(work)


def test_a_stream_whose_replica_dies_ends_with_an_error_event():
    async def work() -> None:
        one = Backend("one")
        one.go_on.clear()
        async with ingress(one) as (client, relay):
            asked = asyncio.ensure_future(client.post("/stream", json=BODY))
            await one.begun.wait()
            await one.die()
            *_, last = (await asked).text.strip().split("\n\n")
            assert json.loads(last.removeprefix("data: "))["error"]["code"] == "replica_lost"
            assert relay.open_requests == 0

    run(work)


def test_an_answer_that_has_not_begun_comes_from_another_replica():
    async def work() -> None:
        one, two = Backend("one"), Backend("two")
        one.go_on.clear()
        two.go_on.clear()
        async with ingress(one, two) as (client, _):
            asked = asyncio.ensure_future(client.post("/whole", json=BODY))
            waiting = {asyncio.ensure_future(b.begun.wait()): b for b in (one, two)}
            [first], rest = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for other in rest:
                other.cancel()
            one.go_on.set() if waiting[first] is two else two.go_on.set()
            await waiting[first].die()
            answer = (await asked).json()
            assert answer["by"] != waiting[first].name

    run(work)


def test_a_client_that_goes_frees_its_replica():
    async def work() -> None:
        one = Backend("one")
        one.go_on.clear()
        async with ingress(one) as (_, relay):
            gone = asyncio.Event()
            sent: list[Any] = []
            received = iter([{"type": "http.request", "body": b"{}", "more_body": False}])

            async def receive() -> Any:
                if message := next(received, None):
                    return message
                await gone.wait()
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                sent.append(message)

            scope = {"type": "http", "method": "POST", "path": "/stream", "headers": []}
            asked = asyncio.ensure_future(relay({**scope, "query_string": b""}, receive, send))
            while len(sent) < 2:
                await asyncio.sleep(0.01)
            gone.set()
            await asked
            assert sent[-1]["more_body"]
            async with asyncio.timeout(10):
                while one.server.open_requests or relay.open_requests:
                    await asyncio.sleep(0.01)

    run(work)


def test_a_full_endpoint_answers_429_at_once():
    async def work() -> None:
        one = Backend("one", limit=1)
        one.go_on.clear()
        async with ingress(one) as (client, _):
            asked = asyncio.ensure_future(client.post("/whole", json=BODY))
            await one.begun.wait()
            refused = await client.post("/whole", json=BODY)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert (await client.get("/v1/adapters")).status_code == 200
            assert (await client.get("/nothing")).status_code == 404
            one.go_on.set()
            assert (await asked).status_code == 200

    run(work)


def test_without_a_working_engine_the_answer_is_503_and_others_take_over():
    async def work() -> None:
        one, two = Backend("one"), Backend("two")
        one.state["failed"] = two.state["failed"] = True
        async with ingress(one, two) as (client, _):
            refused = await client.post("/whole", json=BODY)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
            assert refused.json()["error"]["code"] == "engine_failed"
            two.state = {**two.state, "failed": False}
            async with asyncio.timeout(10):
                while (answer := await client.post("/whole", json=BODY)).status_code == 503:
                    await asyncio.sleep(0.05)
            assert answer.json()["by"] == "two"

    run(work)


def test_a_replica_that_hangs_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(relay_module, "GRACE_S", -4.8)

    async def work() -> None:
        one = Backend("one")
        one.go_on.clear()
        async with ingress(one) as (client, _):
            assert (await client.post("/whole", json=BODY)).status_code == 408
            assert "request_timeout" in (await client.post("/stream", json=BODY)).text

    run(work)


def test_a_draining_replica_ends_what_it_has_and_gets_nothing_new():
    async def work() -> None:
        one, two = Backend("one"), Backend("two")
        two.state["names"] = []
        one.go_on.clear()
        async with ingress(one, two) as (client, _):
            asked = asyncio.ensure_future(client.post("/whole", json=BODY))
            await one.begun.wait()
            draining = asyncio.ensure_future(one.server.drain(5))
            await asyncio.sleep(0.5)
            assert (await client.post("/whole", json=BODY)).json()["by"] == "two"
            assert not draining.done()
            one.go_on.set()
            assert (await asked).json()["by"] == "one"
            await draining

    run(work)


def test_without_a_replica_one_is_asked_for_and_waited_for():
    async def work() -> None:
        late = Backend("late")
        woken = asyncio.Event()
        there: list[Backend] = []

        async def look() -> list[Address]:
            return [Address(b.name, "127.0.0.1", b.server.port, b.server.secret) for b in there]

        replicas = Replicas(look, woken.set)
        relay = Observer(Relay(replicas, timeout_s=5, metrics=str), ())
        running = asyncio.ensure_future(replicas.run())
        async with Client(
            transport=httpx.ASGITransport(relay), base_url="http://ingress"
        ) as client:
            assert (await client.get("/healthz")).json()["replicas"] == 0
            asked = asyncio.ensure_future(client.post("/whole", json=BODY))
            await woken.wait()
            await late.server.start("127.0.0.1")
            there.append(late)
            assert (await asked).json()["by"] == "late"
        running.cancel()
        await late.die()

    run(work)


def test_a_replica_is_asked_for_until_one_comes(monkeypatch):
    monkeypatch.setattr(replicas_module, "AGAIN_S", 0.02)

    async def work() -> None:
        calls: list[None] = []

        async def look() -> list[Address]:
            return []

        replicas = Replicas(look, lambda: calls.append(None))
        waiting = asyncio.ensure_future(replicas.present(10))
        async with asyncio.timeout(10):
            while len(calls) < 3:
                await asyncio.sleep(0.01)
        waiting.cancel()

    run(work)


def test_requests_about_adapters_reach_every_replica():
    async def work() -> None:
        async with ingress(Backend("a"), Backend("bad")) as (client, _):
            listed = (await client.get("/v1/adapters")).json()["data"]
            assert listed == [
                {"id": "of-a", "replica": "a"},
                {"id": "of-bad", "replica": "bad"},
            ]
            refused = await client.post("/v1/adapters", json=BODY)
            assert (refused.status_code, refused.json()) == (400, {"id": "bad"})

    run(work)


@pytest.mark.parametrize(
    ("statuses", "told"),
    [
        ((404, 200, 404), (200, "b")),  # who never held it changes nothing
        ((404, 404, 404), (404, "a")),
        ((404, 200, 503), (503, "c")),
        ((404, 404, 409), (409, "c")),
    ],
)
def test_what_one_replica_unloaded_is_unloaded(statuses, told):
    async def work() -> None:
        backends = [Backend(name) for name in "abc"]
        for backend, status in zip(backends, statuses, strict=True):
            backend.unloads = status
        async with ingress(*backends) as (client, _):
            for answer in (
                await client.delete("/v1/adapters/home"),
                await client.post("/v1/unload_lora_adapter", json={"lora_name": "home"}),
            ):
                assert (answer.status_code, answer.json()["id"]) == told

    run(work)


@pytest.mark.parametrize("status", [400, 404])
def test_what_one_replica_could_not_load_is_not_loaded(status):
    async def work() -> None:
        bad = Backend("bad")
        bad.refuses = status
        async with ingress(Backend("a"), bad) as (client, _):
            refused = await client.post("/v1/adapters", json=BODY)
            assert (refused.status_code, refused.json()) == (status, {"id": "bad"})

    run(work)


def test_a_change_that_hangs_on_one_replica_is_not_told_as_done():
    async def work() -> None:
        slow = Backend("slow")
        slow.tell.clear()
        async with ingress(Backend("a"), slow, timeout_s=0.2) as (client, _):
            assert (await client.post("/v1/adapters", json=BODY)).status_code == 408
            assert (await client.delete("/v1/adapters/home")).status_code == 408
            listed = (await client.get("/v1/adapters")).json()["data"]
            assert listed == [{"id": "of-a", "replica": "a"}]

    run(work)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_10_mb_is_413(chunked):
    async def content() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 1_000_000

    async def work() -> None:
        one = Backend("one")
        async with ingress(one) as (client, _):
            body = content() if chunked else b"x" * 10_000_000
            answer = await client.post("/whole", content=body)
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "request_too_large"
            assert one.seen == []

    run(work)


def test_without_the_secret_a_replica_hangs_up():
    async def work() -> None:
        one = Backend("one")
        await one.server.start("127.0.0.1")
        for opening in (b"\xa5wrong", b"\xc1\xc1", b"GET / HTTP/1.1\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", one.server.port)
            writer.write(opening)
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
        await one.die()

    run(work)
