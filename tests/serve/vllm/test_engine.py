"""The second engine against a server that speaks vLLM's routes, and its rules."""

import asyncio
import json
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from transformers import LlamaConfig, LlamaForCausalLM

from raylora.config.compose import load_serve
from raylora.config.lora_spec import LoraSpec
from raylora.engine import request as engine_request
from raylora.engine.request import FinishReason
from raylora.engine.sampling import Sampling
from raylora.errors import InvalidAdapter, InvalidConfig, RayloraError
from raylora.lora.attach import attach, save_adapter
from raylora.lora.base import linear_shapes_of
from raylora.lora.sources import LocalModel
from raylora.serve.vllm.engine import VllmEngine, VllmSlots
from raylora.serve.vllm.server import VllmServer, command, environment

KEY = {"Authorization": "Bearer secret"}


class FakeVllm:
    """Answers with the model's name and the prompt's tokens, one a chunk."""

    def __init__(self) -> None:
        self.url = ""
        self.headers = dict(KEY)
        self.is_alive = True
        self.loaded: dict[str, str] = {}
        self.open = 0
        self.delay_s = 0.0
        self.may_speak = threading.Event()
        self.may_speak.set()
        self.app = FastAPI()
        self.app.post("/v1/completions")(self.complete)
        self.app.post("/v1/load_lora_adapter")(self.load)
        self.app.post("/v1/unload_lora_adapter")(self.unload)

    def stop(self) -> None:
        self.is_alive = False

    async def complete(self, request: Request) -> Any:
        if request.headers["authorization"] != KEY["Authorization"]:
            return JSONResponse({"error": {"message": "unauthorized"}}, 401)
        body = await request.json()
        if body["model"] not in ("base", *self.loaded):
            return JSONResponse({"error": {"message": f"no model {body['model']}"}}, 404)
        return StreamingResponse(self.answer(body), media_type="text/event-stream")

    async def answer(self, body: dict[str, Any]) -> AsyncIterator[str]:
        self.open += 1
        try:
            for i, token in enumerate(body["prompt"]):
                await asyncio.sleep(self.delay_s)
                await asyncio.to_thread(self.may_speak.wait)
                last = i == len(body["prompt"]) - 1
                choice = {
                    "index": 0,
                    "text": f"{body['model']}:{token} ",
                    "token_ids": [token],
                    "finish_reason": "length" if last else None,
                }
                yield f"data: {json.dumps({'choices': [choice]})}\n\n"
            yield "data: [DONE]\n\n"
        finally:
            self.open -= 1

    async def load(self, request: Request) -> Any:
        body = await request.json()
        if "broken" in body["lora_name"]:
            return JSONResponse({"error": {"message": "no such tensors"}}, 400)
        self.loaded[body["lora_name"]] = body["lora_path"]
        return JSONResponse("ok")

    async def unload(self, request: Request) -> Any:
        body = await request.json()
        if self.loaded.pop(body["lora_name"], None) is None:
            return JSONResponse({"error": {"message": "not loaded"}}, 404)
        return JSONResponse("ok")


@pytest.fixture
def fake() -> Iterator[FakeVllm]:
    made = FakeVllm()
    config = uvicorn.Config(made.app, host="127.0.0.1", port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    made.url = f"http://127.0.0.1:{port}"
    yield made
    server.should_exit = True
    thread.join()


def asked(name: str, adapter: str | None = None, tokens: int = 3) -> engine_request.Request:
    return engine_request.Request(name, tuple(range(tokens)), adapter, Sampling(8))


def engine_of(fake: FakeVllm, step_timeout_s: float = 60) -> VllmEngine:
    return VllmEngine(fake, "base", step_timeout_s=step_timeout_s)


async def completions(engine: VllmEngine, *requests: engine_request.Request) -> dict[str, Any]:
    return {
        event.id: event.completion
        async for event in engine.stream(requests)
        if event.completion is not None
    }


def test_requests_of_several_adapters_are_answered_at_once(fake: FakeVllm):
    fake.loaded["a@1"] = "somewhere"
    engine = engine_of(fake)
    found = asyncio.run(completions(engine, asked("x", "a@1"), asked("y")))
    assert found["x"].text == "a@1:0 a@1:1 a@1:2 "
    assert found["y"].text == "base:0 base:1 base:2 "
    assert found["y"].token_ids == (0, 1, 2)
    assert engine.open_requests == 0


def test_a_refusal_ends_the_request_with_its_reason(fake: FakeVllm):
    found = asyncio.run(completions(engine_of(fake), asked("x", "gone@1")))
    assert found["x"].finish_reason is FinishReason.ERROR
    assert found["x"].error == "no model gone@1"


def test_a_server_that_says_nothing_for_long_has_failed_until_it_speaks_again(fake: FakeVllm):
    engine = engine_of(fake, step_timeout_s=1.0)
    fake.may_speak.clear()

    async def work() -> None:
        answer = engine.stream([asked("x", tokens=1)])
        first = asyncio.ensure_future(anext(answer))
        await asyncio.sleep(0.1)
        assert engine.failure is None
        async with asyncio.timeout(10):
            while engine.failure is None:
                await asyncio.sleep(0.05)
        assert "no token of 1 requests" in engine.failure
        fake.may_speak.set()
        await first
        assert engine.failure is None
        await answer.aclose()
        await asyncio.sleep(1.2)
        assert engine.failure is None  # nobody waits

    asyncio.run(work())


def test_a_server_that_is_gone_ends_the_request(fake: FakeVllm):
    fake.url = "http://127.0.0.1:9"
    found = asyncio.run(completions(engine_of(fake), asked("x")))
    assert found["x"].finish_reason is FinishReason.ERROR


def test_closing_a_stream_closes_its_connection(fake: FakeVllm):
    fake.delay_s = 0.02
    engine = engine_of(fake)

    async def leave() -> None:
        events = engine.stream([asked("x", tokens=500)])
        await anext(events)
        assert fake.open == 1
        await events.aclose()
        for _ in range(100):
            if not fake.open:
                return
            await asyncio.sleep(0.02)

    asyncio.run(leave())
    assert fake.open == 0
    assert engine.open_requests == 0


def test_what_ends_a_stream_is_not_kept_waiting_by_its_connection(fake: FakeVllm):
    """A server that ends an answer whose client has gone cancels whatever waits in between."""
    fake.delay_s = 0.02
    engine = engine_of(fake)

    async def leave() -> bool:
        events = engine.stream([asked("x", tokens=500)])
        await anext(events)
        released = False
        with anyio.CancelScope() as scope:
            scope.cancel()
            await events.aclose()
            released = True
        for _ in range(100):
            await asyncio.sleep(0.02)
            if not fake.open:
                break
        return released

    assert asyncio.run(leave())
    assert (fake.open, engine.open_requests) == (0, 0)


@pytest.mark.parametrize("chunk", ['["no object"]', '{"error": "no object"}', '{"choices": [{}]}'])
def test_an_answer_that_makes_no_sense_ends_the_request(fake: FakeVllm, monkeypatch, chunk: str):
    async def answer(body: dict[str, Any]) -> AsyncIterator[str]:
        yield f"data: {chunk}\n\n"

    monkeypatch.setattr(fake, "answer", answer)

    async def ask() -> dict[str, Any]:
        async with asyncio.timeout(5):
            return await completions(engine_of(fake), asked("x"))

    found = asyncio.run(ask())
    assert found["x"].finish_reason is FinishReason.ERROR


@pytest.fixture
def adapter(tmp_path: Path, tiny_config: LlamaConfig) -> Path:
    model = attach(LlamaForCausalLM(tiny_config), LoraSpec(r=4), 0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)
    base = LocalModel(Path("tiny"), "tiny", "rev-1", "tiny")
    save_adapter(model, tmp_path / "adapter", base, {"run_id": "r"})
    return tmp_path / "adapter"


@pytest.fixture
def linears(tiny_config: LlamaConfig) -> dict[str, tuple[int, int]]:
    return linear_shapes_of(tiny_config)


async def room(size: int) -> None:
    assert size > 0


def slots_of(fake: FakeVllm, linears: dict[str, tuple[int, int]], rank: int = 64) -> VllmSlots:
    return VllmSlots(engine_of(fake), 2, rank, linears, None)


def test_an_adapter_is_checked_loaded_and_unloaded(fake: FakeVllm, adapter: Path, linears):
    async def both() -> int:
        slots = slots_of(fake, linears)
        facts = await slots.add("a@1", adapter, room)
        assert fake.loaded == {"a@1": str(adapter.resolve())}
        await slots.remove("a@1")
        return facts.r

    assert asyncio.run(both()) == 4
    assert fake.loaded == {}


def test_a_damaged_adapter_never_reaches_vllm(fake: FakeVllm, adapter: Path, linears):
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(InvalidAdapter):
        asyncio.run(slots_of(fake, linears).add("a@1", adapter, room))
    assert fake.loaded == {}


def test_what_vllm_cannot_load_is_refused_with_the_reason(fake: FakeVllm, adapter: Path, linears):
    with pytest.raises(InvalidAdapter, match="no such tensors"):
        asyncio.run(slots_of(fake, linears).add("broken@1", adapter, room))
    with pytest.raises(InvalidAdapter, match="vllm.max_lora_rank=2"):
        asyncio.run(slots_of(fake, linears, rank=2).add("a@1", adapter, room))
    with pytest.raises(RayloraError, match="not loaded"):
        asyncio.run(slots_of(fake, linears).remove("a@1"))


def test_quantised_weights_are_refused_with_the_reason():
    with pytest.raises(InvalidConfig) as caught:
        load_serve("quickstart", ["engine=vllm", "model.quantization=nf4"])
    problem = caught.value.problems[0]
    assert problem.key == "model.quantization"
    assert "model.quantization=none or engine=raylora" in f"{problem.message} {problem.remedy}"


def test_the_command_line_follows_the_spec():
    overrides = ["engine=vllm", "model.dtype=fp32", "vllm.python=/env/bin/python"]
    spec = load_serve("quickstart", [*overrides, "vllm.arguments=['--seed=1']"]).spec
    line = command(spec, LocalModel(Path("/m"), "m", "r", "m"), 512, 8123)
    assert line[:3] == ["/env/bin/python", "-m", "vllm.entrypoints.openai.api_server"]
    assert {"--host=127.0.0.1", "--port=8123", "--model=/m", "--dtype=float32"} <= set(line)
    assert {"--max-model-len=512", "--enable-lora", "--max-cpu-loras=64"} <= set(line)
    assert line[-1] == "--seed=1"


def test_a_server_that_ends_as_it_starts_is_an_error(tmp_path: Path):
    spec = load_serve("quickstart", ["engine=vllm"]).spec
    server = VllmServer([sys.executable, "-c", "raise SystemExit(3)"], environment(spec), 9)
    with pytest.raises(RayloraError, match="exit code 3"):
        server.wait_until_ready(30)
    assert not server.is_alive


def test_a_server_is_stopped():
    spec = load_serve("quickstart", ["engine=vllm"]).spec
    server = VllmServer(
        [sys.executable, "-c", "import time; time.sleep(60)"], environment(spec), 9
    )
    server.stop()
    assert not server.is_alive
