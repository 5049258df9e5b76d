"""vLLM's CPU build itself behind the seam, where `make bars-setup` has made its environment."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from raylora.config.compose import load_serve
from raylora.config.lora_spec import LoraSpec
from raylora.config.places import cache
from raylora.engine.generator import Engine, generate
from raylora.engine.grammar import grammar_of
from raylora.engine.request import Completion, Request
from raylora.engine.sampling import Sampling
from raylora.lora.attach import attach, save_adapter
from raylora.lora.bank.bank import Bank
from raylora.lora.base import load_base
from raylora.lora.devices import pick
from raylora.lora.sources import LocalModel, fetch
from raylora.serve.engines import Running, start_engine

PROMPT = "Once upon a time, in a small town, there lived a baker. Every morning"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.fixture
def python() -> Path:
    found = Path(__file__).resolve().parents[2] / "benchmarks/.peers-vllm/bin/python"
    if not found.exists():
        pytest.skip("vLLM's environment is missing: make bars-setup")
    return found


async def asked(running: Running, *requests: Request) -> dict[str, Completion]:
    return {
        event.id: event.completion
        async for event in running.engine.stream(requests)
        if event.completion is not None
    }


async def room(size: int) -> None:
    assert size > 0


def adapter_of(model: Any, local: LocalModel, directory: Path) -> Path:
    adapted = attach(model, LoraSpec(r=8), 0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.02)
    save_adapter(adapted, directory, local, {"run_id": "r"})
    return directory


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.timeout(1200)
def test_vllm_gives_our_engines_tokens(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    own = ["model.dtype=fp32", "model.max_length=256", "batching.max_batch_size=4"]
    vllm = ["engine=vllm", f"vllm.python={python}", "vllm.max_lora_rank=8", "max_adapters=2"]
    spec = load_serve("quickstart", [*own, *vllm]).spec
    local = fetch(spec.model, cache())
    tokenizer = AutoTokenizer.from_pretrained(local.path)
    directory = adapter_of(load_base(local, spec.model, pick()), local, tmp_path / "adapter")
    prompt = tuple(tokenizer.encode(PROMPT))
    requests = [
        Request("base", prompt, None, Sampling(8, logprobs=1)),
        Request("adapter", prompt, "a@1", Sampling(8, logprobs=1)),
    ]

    running = start_engine(spec, local, tokenizer)
    try:

        async def all_of_it() -> tuple[dict[str, Completion], dict[str, Completion]]:
            await running.slots.add("a@1", directory, room)
            plain = await asked(running, *requests)
            held = Sampling(40, grammar=grammar_of(SCHEMA))
            schema = await asked(running, Request("json", prompt, "a@1", held))
            await running.slots.remove("a@1")
            return plain, schema

        found, schema = asyncio.run(all_of_it())
    finally:
        running.engine.stop()
    assert running.engine.failure

    model = load_base(local, spec.model, pick())
    bank = Bank(model)
    bank.add("a@1", directory)
    wanted = generate(Engine(model, tokenizer, bank, max_batch_size=2), requests)
    for completion in wanted:
        assert found[completion.id].token_ids == completion.token_ids
        assert found[completion.id].text == completion.text
        for theirs, ours in zip(found[completion.id].logprobs, completion.logprobs, strict=True):
            assert theirs.token == ours.token
            assert theirs.logprob == pytest.approx(ours.logprob, abs=1e-3)
    assert found["base"].token_ids != found["adapter"].token_ids
    assert set(json.loads(schema["json"].text)) == {"name"}
