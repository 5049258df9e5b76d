"""Canaries: who gets them, when they end, and what is compared."""

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest

from raylora.config.serve_spec import RollbackSpec, RouteSpec
from raylora.serve.adapters.routes import Choice, Route
from raylora.serve.adapters.routing import Routing
from raylora.serve.http.openai_api import create_app

CANARY = "home@3"
ROLLBACK = RollbackSpec(error_rate=0.5, window=10, min_requests=4)


def route(draw=lambda: 0.0, **fields: Any) -> Route:
    return Route("home", RouteSpec(canary="next", **fields), draw)


def test_the_share_of_requests_is_the_weight():
    draws = iter([i / 100 for i in range(100)])
    split = route(lambda: next(draws), weight=0.3)
    chosen = [split.choose(None, CANARY).model for _ in range(100)]
    assert chosen.count("home@next") == 30
    assert chosen.count("home@champion") == 70


def test_a_user_stays_on_one_side_and_the_canarys_users_are_kept_as_it_grows():
    users = [f"user-{i}" for i in range(400)]

    def on_canary(weight: float) -> set[str]:
        split = route(weight=weight)
        return {user for user in users if split.choose(user, CANARY).model == "home@next"}

    small, large = on_canary(0.1), on_canary(0.5)
    assert small == on_canary(0.1)
    assert small < large
    assert 20 < len(small) < 60
    assert 160 < len(large) < 240


def test_without_a_canary_and_with_a_shadow_stable_answers():
    assert route(weight=1).choose(None, None) == Choice("home@champion")
    shadowed = route(weight=1, shadow=True).choose(None, CANARY)
    assert shadowed == Choice("home@champion", shadow="home@next")


def test_a_canary_that_fails_too_often_is_rolled_back_until_its_alias_moves():
    split = route(weight=1, rollback=ROLLBACK)
    failures = [True, False, False, True, True, True]
    ended = [split.record(CANARY, failed, CANARY) for failed in failures]
    assert ended == [False, False, False, False, True, False]
    assert split.choose(None, CANARY) == Choice("home@champion")
    assert split.choose(None, "home@4") == Choice("home@next")


def test_failures_of_stable_roll_nothing_back():
    split = route(weight=1, rollback=ROLLBACK)
    assert not any(split.record("home@2", True, CANARY) for _ in range(20))
    assert split.facts()["stable_failed"] == 20


# --- On the endpoint -----------------------------------------------------------------------------


@pytest.fixture
def ask(endpoint):
    """Set the route of `home`, then ask it; the versions that answered."""

    def asked(times: int = 1, **fields: Any) -> list[str]:
        spec = RouteSpec(canary="next", rollback=ROLLBACK, **fields)
        endpoint.routing = Routing(endpoint.residency, {"home": spec})

        async def go() -> list[str]:
            transport = httpx.ASGITransport(create_app(endpoint), raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://endpoint"
            ) as client:
                found = []
                for _ in range(times):
                    body = {"model": "home", "prompt": "hi", "user": "u", "max_tokens": 40}
                    answer = await client.post("/v1/completions", json=body)
                    found.append(answer.headers.get("x-raylora-adapter", str(answer.status_code)))
                while endpoint._shadows:
                    await asyncio.sleep(0.01)
                return found

        return asyncio.run(go())

    return asked


def test_requests_for_the_name_go_to_the_canary_and_to_stable(ask):
    assert ask(weight=1) == ["home@3"]
    assert ask(weight=0) == ["home@2"]


def test_a_canary_that_cannot_be_loaded_costs_no_request(ask, registry, endpoint):
    registry.broken.add("home@3")
    assert ask(times=8, weight=1) == ["home@2"] * 8
    [facts] = endpoint.routing.facts
    assert facts["rolled_back"] == ["home@3"]
    assert (facts["canary_failed"], facts["stable_answers"]) == (4, 8)


def test_a_canary_that_finds_no_room_is_not_rolled_back_for_it(ask, endpoint, slots):
    slots.capacity = 1

    async def hold() -> None:
        await endpoint.residency.acquire("home@2")

    asyncio.run(hold())
    assert ask(times=8, weight=1) == ["home@2"] * 8
    [facts] = endpoint.routing.facts
    assert (facts["rolled_back"], facts["canary_failed"]) == ([], 0)


def test_a_canary_whose_answers_fail_is_rolled_back_and_stays_so(ask, engine, endpoint):
    engine.fails_for = {"home@3"}
    assert ask(times=6, weight=1) == ["500"] * 4 + ["home@2"] * 2
    assert ask(weight=1) == ["home@2"]


@pytest.mark.parametrize("part", ["load", "generate", "compare"])
def test_whatever_fails_of_a_shadow_costs_a_line_in_the_log(
    ask, endpoint, caplog, monkeypatch, part
):
    def broken(*_: Any) -> None:
        raise RuntimeError("disk is gone")

    async def not_loaded(model: str) -> Any:
        return broken() if model == "home@next" else await acquire(model)

    def not_generated(requests: Any) -> Any:
        return broken() if requests[0].adapter == CANARY else stream(requests)

    acquire, stream = endpoint.residency.acquire, endpoint.engine.stream
    if part == "load":
        monkeypatch.setattr(endpoint.residency, "acquire", not_loaded)
    elif part == "generate":
        monkeypatch.setattr(endpoint.engine, "stream", not_generated)
    else:
        monkeypatch.setattr(Routing, "compare", broken)
    assert ask(times=2, weight=1, shadow=True) == ["home@2"] * 2
    told = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert [record.getMessage() for record in told] == ["a shadow request to home@next failed"] * 2
    assert "disk is gone" in caplog.text
    assert not any(resident.in_use for resident in endpoint.residency.residents)
    assert endpoint.open_tokens == 0


def test_a_shadow_is_compared_and_its_differences_are_logged(ask, endpoint, caplog):
    caplog.set_level(logging.INFO, "raylora")
    assert ask(times=2, weight=1, shadow=True, log_text=True) == ["home@2"] * 2
    [facts] = endpoint.routing.facts
    assert (facts["compared"], facts["differed"]) == (2, 2)
    [logged, _] = [m for m in caplog.messages if m.startswith("shadow ")]
    told = json.loads(logged.removeprefix("shadow "))
    assert told["differ_at"] == len("[home@")
    assert [text[0] for text in told["text"]] == ["2", "3"]
    assert [resident.in_use for resident in endpoint.residency.residents] == [0, 0]
