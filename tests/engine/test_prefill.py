"""Prompts in pieces, and prompts whose beginning is known: the same tokens in fp32."""

import json
import random
from pathlib import Path

import pytest
import torch

from raylora.config.lora_spec import LoraSpec
from raylora.engine.cache_budget import CacheBudget
from raylora.engine.generator import Engine, generate
from raylora.engine.prefixes import BLOCK
from raylora.engine.request import FinishReason, Request
from raylora.engine.sampling import Sampling
from raylora.errors import InvalidRequest, RayloraError
from raylora.lora import manifest
from raylora.lora.adapter_config import CONFIG
from raylora.lora.attach import attach, save_adapter
from raylora.lora.bank.bank import Bank
from raylora.lora.sources import LocalModel

ROOMY = 64 << 20


def make_adapter(model, directory: Path, seed: int) -> Path:
    adapted = attach(type(model)(model.config), LoraSpec(r=4), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.3, generator=generator)
    save_adapter(adapted, directory, LocalModel(directory, "small", "1", "small"), {})
    return directory


@pytest.fixture
def bank(small_llama, tmp_path):
    made = Bank(small_llama)
    for seed, name in enumerate("ab"):
        made.add(name, make_adapter(small_llama, tmp_path / name, seed))
    yield made
    made.close()


def conversations(count: int) -> list[Request]:
    """Prompts that begin with one of two long texts, for two adapters and the base."""
    draw = random.Random(5)
    texts = [[draw.randrange(3, 259) for _ in range(length)] for length in (50, 130)]
    return [
        Request(
            f"r{i}",
            (
                *draw.choice(texts),
                *(draw.randrange(3, 259) for _ in range(draw.choice((1, 7, 40)))),
            ),
            draw.choice(("a", "b", None)),
            Sampling(max_new_tokens=draw.choice((1, 6, 20))),
        )
        for i in range(count)
    ]


def tokens(engine: Engine, requests: list[Request]) -> list[tuple[int, ...]]:
    return [completion.token_ids for completion in generate(engine, requests)]


def engine_of(small_llama, tiny_tokenizer, bank, **options) -> Engine:
    return Engine(small_llama, tiny_tokenizer, bank, max_batch_size=5, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"prefill_tokens": 16},
        {"cache_bytes": ROOMY},
        {"cache_bytes": ROOMY, "prefill_tokens": 16},
        {"cache_bytes": 5 << 19, "prefill_tokens": 40},
    ],
    ids=["in pieces", "known beginnings", "both", "little room"],
)
def test_pieces_and_known_beginnings_change_no_token(small_llama, tiny_tokenizer, bank, options):
    requests = conversations(40)
    wanted = tokens(engine_of(small_llama, tiny_tokenizer, bank), requests)
    engine = engine_of(small_llama, tiny_tokenizer, bank, **options)
    assert tokens(engine, requests) == wanted
    assert (engine.stats.prefix_hits > 0) == ("cache_bytes" in options)
    assert tokens(engine, requests) == wanted


def test_a_prompt_and_its_answer_are_known_to_the_next_turn_of_the_same_version_only(
    small_llama, tiny_tokenizer, bank, tmp_path
):
    engine = engine_of(small_llama, tiny_tokenizer, bank, cache_bytes=ROOMY)
    sampling = Sampling(max_new_tokens=40)
    first = tuple(range(10, 10 + 2 * BLOCK))
    [answer] = generate(engine, [Request("1", first, "a", sampling)])
    turn = (*first, *answer.token_ids, 7, 8)

    def reused(adapter: str | None) -> int:
        before = engine.stats.reused_tokens
        generate(engine, [Request("2", turn, adapter, sampling)])
        return engine.stats.reused_tokens - before

    assert reused("b") == reused(None) == 0
    assert reused("a") >= len(turn) - 2 - BLOCK
    bank.remove("a")
    bank.add("a", make_adapter(small_llama, tmp_path / "other", 7))
    assert reused("a") == 0


def test_what_an_adapter_knew_is_known_when_it_comes_back(
    small_llama, tiny_tokenizer, bank, tmp_path
):
    engine = engine_of(small_llama, tiny_tokenizer, bank, cache_bytes=ROOMY)
    prompt = tuple(range(10, 10 + 3 * BLOCK))

    def reused() -> int:
        before = engine.stats.reused_tokens
        generate(engine, [Request("1", prompt, "a", Sampling(max_new_tokens=2))])
        return engine.stats.reused_tokens - before

    assert reused() == 0
    bank.remove("a")
    bank.add("a", tmp_path / "a")
    assert reused() > BLOCK
    config = tmp_path / "a" / CONFIG
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 5}))
    manifest.write(tmp_path / "a", {})
    bank.remove("a")
    bank.add("a", tmp_path / "a")
    assert reused() == 0


def test_a_first_token_is_said_before_the_others_next_one(small_llama, tiny_tokenizer, base_only):
    engine = Engine(small_llama, tiny_tokenizer, base_only, max_batch_size=4)
    engine.add(Request("runs", (5, 6, 7), None, Sampling(max_new_tokens=60)))
    engine.step()
    engine.step()
    engine.add(Request("comes", (8, 9, 10), None, Sampling(max_new_tokens=1)))
    before = engine.stats.decoded_tokens
    [event] = engine.step()
    assert (event.id, engine.stats.decoded_tokens - before) == ("comes", 1)
    engine.add(Request("next", (8, 9, 11), None, Sampling(max_new_tokens=1)))
    engine.step()
    assert (engine.waiting, engine.stats.decoded_tokens - before) == (1, 2)


def test_a_long_prompt_takes_turns_with_the_rows_that_generate(
    small_llama, tiny_tokenizer, base_only
):
    engine = Engine(small_llama, tiny_tokenizer, base_only, max_batch_size=4, prefill_tokens=32)
    engine.add(Request("runs", (5, 6, 7), None, Sampling(max_new_tokens=60)))
    engine.step()
    engine.add(Request("long", tuple(range(3, 203)), None, Sampling(max_new_tokens=5)))
    engine.add(Request("short", (8, 9, 10), None, Sampling(max_new_tokens=5)))
    for _ in range(2):
        before = engine.stats
        engine.step()
        assert engine.stats.decoded_tokens > before.decoded_tokens
    assert (engine.stats.prefilling, engine.running) == (1, 2)
    steps = 2
    while engine.stats.prefilling:
        engine.step()
        steps += 1
    own = steps - 2  # after the other two's first tokens a step takes no prompt
    assert own == pytest.approx(200 / 32, abs=1.5)


def test_a_prompt_on_its_way_can_be_cancelled(small_llama, tiny_tokenizer, base_only):
    engine = Engine(small_llama, tiny_tokenizer, base_only, max_batch_size=4, prefill_tokens=16)
    engine.add(Request("runs", (5, 6, 7), None, Sampling(max_new_tokens=60)))
    engine.step()
    engine.add(Request("long", tuple(range(3, 203)), None, Sampling(max_new_tokens=5)))
    engine.step()
    engine.step()
    assert engine.stats.prefilling == 1
    engine.cancel("long")
    ended = [event.completion for event in engine.step() if event.completion]
    assert [(c.id, c.finish_reason) for c in ended] == [("long", FinishReason.CANCELLED)]
    assert (engine.stats.prefilling, engine.running, engine.waiting) == (0, 1, 0)


def test_keys_and_values_stay_under_their_budget(small_llama, tiny_tokenizer, bank):
    budget = 5 << 19
    engine = engine_of(small_llama, tiny_tokenizer, bank, cache_bytes=budget, prefill_tokens=64)
    for request in conversations(60):
        engine.add(request)
    most = 0
    while engine.has_work:
        engine.step()
        most = max(most, engine.stats.kv_bytes)
    assert budget // 4 < most <= budget
    assert engine.stats.waiting == 0
    assert engine.stats.kv_bytes == engine.stats.prefix_bytes


@pytest.mark.parametrize(
    ("prompt", "answers", "columns"),
    [(100, [20] * 7 + [28], 128), (40, [60] * 8, 128)],
    ids=["buffers of eight that one row goes on in", "eight that join together"],
)
def test_kept_beginnings_take_only_what_rows_leave(
    small_llama, tiny_tokenizer, base_only, prompt, answers, columns
):
    room = (8 + 2) * columns * 2 * 3 * 2 * 8 * 4
    engine = Engine(small_llama, tiny_tokenizer, base_only, max_batch_size=8, cache_bytes=room)
    draw = random.Random(2)
    for i in range(24):
        ids = tuple(draw.randrange(3, 259) for _ in range(prompt))
        engine.add(
            Request(f"r{i}", ids, None, Sampling(answers[i % 8], logit_bias=((2, -100.0),)))
        )
    while engine.has_work:
        engine.step()
        assert engine.stats.kv_bytes <= room or not engine.stats.prefix_bytes
    assert engine.stats.prefix_bytes > 0


def test_the_budget_bounds_the_context(small_llama, tiny_tokenizer, base_only):
    engine = Engine(small_llama, tiny_tokenizer, base_only, max_batch_size=2, cache_bytes=60_000)
    assert engine.max_length == 128
    with pytest.raises(InvalidRequest, match="130 tokens and the context length is 128"):
        engine.add(Request("r", tuple(range(3, 133)), None, Sampling(max_new_tokens=1)))
    [cut] = generate(engine, [Request("r", (5, 6, 7), None, Sampling(max_new_tokens=300))])
    assert (cut.finish_reason, len(cut.token_ids)) == (FinishReason.LENGTH, 125)


def test_a_budget_that_holds_no_request_is_refused(small_llama, tiny_tokenizer, base_only):
    with pytest.raises(RayloraError, match="do not hold one request"):
        Engine(small_llama, tiny_tokenizer, base_only, max_batch_size=2, cache_bytes=40_000)


def test_a_flood_for_one_adapter_does_not_starve_another(small_llama, tiny_tokenizer, bank):
    engine = engine_of(small_llama, tiny_tokenizer, bank)
    for i in range(60):
        engine.add(Request(f"flood{i}", (5, 6, i + 7), "a", Sampling(max_new_tokens=8)))
    engine.step()
    engine.add(Request("late", (5, 6, 7), "b", Sampling(max_new_tokens=8)))
    ended: list[str] = []
    while "late" not in ended:
        ended += [event.id for event in engine.step() if event.completion]
    assert len(ended) <= 15


def test_a_token_takes_the_bytes_that_the_cache_has_for_it(small_llama, tiny_tokenizer, base_only):
    engine = Engine(small_llama, tiny_tokenizer, base_only, max_batch_size=2)
    engine.add(Request("r", (5, 6, 7), None, Sampling(max_new_tokens=20)))
    engine.step()
    token_bytes = 2 * 3 * 2 * 8 * 4
    assert engine.stats.kv_bytes == CacheBudget(None, token_bytes).bytes_for([23])
