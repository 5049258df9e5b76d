"""raylora bench serve, against a small endpoint of known speed."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from tests.serve.http_server import serving

from raylora.cli.bench import percentiles
from raylora.cli.load import Load, measure
from raylora.cli.main import cli

FIRST_S, TOKEN_S, TOKENS = 0.05, 0.01, 5


class Endpoint:
    """The first of five tokens after 50 ms, the others 10 ms apart."""

    def __init__(self) -> None:
        self.came: list[float] = []
        self.bodies: list[dict[str, Any]] = []
        self.open = 0
        self.most_open = 0
        self.fails_with: int | None = None
        self.breaks = False
        self.first_s = FIRST_S
        chat = Route("/v1/chat/completions", self.chat, methods=["POST"])
        self.app = Starlette(routes=[chat, Route("/v1/models", self.models)])

    async def models(self, request: Request) -> Response:
        cards = [{"id": "tiny", "parent": None}, {"id": "home", "parent": "tiny"}]
        return JSONResponse({"data": cards})

    async def chat(self, request: Request) -> Response:
        self.came.append(time.monotonic())
        self.bodies.append(await request.json())
        if self.fails_with is not None:
            return JSONResponse({"error": {"message": "no"}}, self.fails_with)
        return StreamingResponse(self.stream(), media_type="text/event-stream")

    async def stream(self) -> AsyncIterator[str]:
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            for number in range(TOKENS):
                await asyncio.sleep(TOKEN_S if number else self.first_s)
                yield event({"choices": [{"delta": {"content": "x"}, "finish_reason": None}]})
            if not self.breaks:
                yield event({"choices": [], "usage": {"completion_tokens": TOKENS}})
                yield "data: [DONE]\n\n"
        finally:
            self.open -= 1


def event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
def url(endpoint: Endpoint) -> Iterator[str]:
    with serving(endpoint.app) as address:
        yield address


def bench(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["bench", "serve", "--endpoint", url, *arguments])


def found(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_closed_loop_keeps_so_many_clients_busy(url, endpoint):
    told = found(
        bench(
            url, "--concurrency", "4", "--requests", "24", "-m", "tiny", "-m", "home", "-o", "json"
        )
    )
    assert endpoint.most_open == 4
    assert told["outcomes"] == {"ok": 24}
    assert told["tokens"] == 24 * TOKENS
    assert told["tokens_per_second"] == pytest.approx(24 * TOKENS / told["wall_s"])
    for times in (told, told["models"]["tiny"], told["models"]["home"]):
        assert FIRST_S <= times["time_to_first_token_s"]["p50"] < FIRST_S * 2
        assert TOKEN_S <= times["time_per_output_token_s"]["p50"] < TOKEN_S * 2
        assert times["end_to_end_s"]["p50"] >= FIRST_S + 4 * TOKEN_S
    # One request of each model came before, to warm up.
    assert len(endpoint.bodies) == 26
    assert len({body["messages"][0]["content"] for body in endpoint.bodies[2:]}) == 24


def test_an_open_loop_comes_by_its_own_clock(url, endpoint):
    endpoint.first_s = 3.0
    told = found(bench(url, "--rate", "100", "--requests", "60", "--warm-up", "0", "-o", "json"))
    assert told["loop"] == "open"
    # All are there before the first is answered, and not all at once.
    assert endpoint.most_open > 30
    assert endpoint.came[-1] - endpoint.came[0] > 0.3
    assert told["time_to_first_token_s"]["p50"] > 2.0


def test_no_request_begins_when_the_time_is_up_and_none_goes_on_for_ever(url, endpoint):
    endpoint.first_s = 5.0
    load = Load(("tiny",), requests=1000, seconds=0.4, max_tokens=5, concurrency=2)
    started = time.monotonic()
    measured = measure(url, load)
    assert time.monotonic() - started < 2
    assert [sample.outcome for sample in measured.samples] == ["unfinished"] * 2


@pytest.mark.parametrize(("status", "named"), [(429, "429"), (401, "401"), (500, "500")])
def test_refusals_are_counted_by_what_they_are(url, endpoint, status, named):
    endpoint.fails_with = status
    result = bench(url, "--requests", "5", "-o", "json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["outcomes"] == {named: 5}
    assert json.loads(result.stdout)["time_to_first_token_s"] is None


def test_a_stream_without_its_end_is_no_answer(url, endpoint):
    endpoint.breaks = True
    result = bench(url, "--requests", "3", "-o", "json")
    assert json.loads(result.stdout)["outcomes"] == {"broken off": 3}


def test_the_table_has_the_figures_in_milliseconds(url):
    result = bench(url, "--requests", "4")
    assert result.exit_code == 0
    assert "closed, 8 clients" in result.stdout
    assert "4 ok" in result.stdout
    assert "time per output token" in result.stdout
    assert "home" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [["--rate", "1", "--concurrency", "2"], ["--rate", "0"], ["--requests", "1000000"]],
)
def test_what_is_no_load_is_refused(arguments):
    assert bench("http://127.0.0.1:9", *arguments).exit_code == 2


def test_percentiles_are_those_of_the_values():
    values = [float(value) for value in range(1, 102)]
    assert percentiles(values) == {"p50": 51, "p90": 91, "p95": 96, "p99": 100, "mean": 51}
    assert percentiles([None, 2.0]) == dict.fromkeys(("p50", "p90", "p95", "p99", "mean"), 2.0)
    assert percentiles([None]) is None
