"""The programs that the bars of serving ask, on a tiny base."""

from pathlib import Path

import pytest
import torch
from benchmarks.bars.bar import Verdict
from benchmarks.bars.smollm2 import Base
from benchmarks.serve import isolation
from benchmarks.serve.adapter_files import many, write_adapters
from benchmarks.serve.generation import beside_base, byte_bound, in_turns, once
from benchmarks.serve.generators import Generator, Workload, dtype, ours, peft
from benchmarks.serve.isolation import Case, Pair

from raylora.config.model_spec import DType, Quantization
from raylora.lora.adapter_config import WEIGHTS
from raylora.lora.bank.kernel import load
from raylora.lora.base import load_tokenizer
from raylora.lora.sources import LocalModel

PROMPTS = [[5, 6, 7], [8, 9, 10, 11], [12, 13]]
KEYS = ["a00", "a01", None]
WORK = Workload(KEYS, PROMPTS, [3, 5, 4])


@pytest.fixture
def base(tiny_base: Path) -> Base:
    local = LocalModel(tiny_base, "tiny", "0", "tiny")
    return Base(local, load_tokenizer(local))


@pytest.fixture
def adapters(tmp_path: Path, base: Base) -> dict[str, Path]:
    return write_adapters(tmp_path / "adapters", base.local, 3)


def test_our_engine_does_what_it_is_told(base: Base, adapters: dict[str, Path], tmp_path: Path):
    more = many(tmp_path / "many", list(adapters.values()), 3)
    budget = sum((path / WEIGHTS).stat().st_size for path in adapters.values())
    if dtype() == "fp32" and load(torch.float32, torch.bfloat16) is None:
        budget *= 2  # without a compiler files in bf16 are not left so
    given = {"arrivals": [0.0, 0.05, 0.1], "prompts": PROMPTS, "new_tokens": [3, 5, 4]}
    with ours(base.path, threads=1, adapters=adapters, batch=2, max_bytes=budget) as engine:
        assert engine.rate(WORK) > 0
        assert once(engine, WORK).step_s > 0
        for adapted, plain in in_turns(engine, ["a00", "a02", "a00"], WORK, rounds=2):
            assert adapted.rate > 0 < plain.rate
        assert len(beside_base(engine, ["a00"] * 3, WORK, rounds=1).shares) == 1
        assert engine.tell("memory")["adapters"] == 3
        assert byte_bound(engine, 2) > 0
        served = engine.tell("serve", **given)
        assert (served["tokens"], len(served["first_s"])) == (12, 3)
        assert engine.tell("cancel", prompts=PROMPTS[:2])["steps"] == [1]
        for key, path in more.items():
            assert engine.tell("register", key=key, path=str(path))["seconds"] > 0
        assert engine.tell("memory")["adapter_bytes"] <= budget
        cold = engine.tell("first_token", key="a00", prompt=[5, 6])
        warm = engine.tell("first_token", key="a00", prompt=[5, 6])
        assert cold["tier"] == "disk" != warm["tier"]
        with pytest.raises(RuntimeError, match="crashed"):
            engine.tell("generate", keys=["nobody"], prompts=[[5]], new_tokens=[1])


def test_peft_answers_the_same_workload(base: Base, adapters: dict[str, Path]):
    def total(side: Generator, way: str) -> int:
        return side.tell("generate", **WORK.facts(), way=way)["tokens"]

    only = Workload(["a00", "a01", "a02"], PROMPTS, [3, 5, 4])
    with peft(base.path, threads=1, adapters=adapters) as side:
        assert total(side, "adapter_names") == 12
        assert side.tell("generate", **only.facts(), way="set_adapter")["tokens"] == 12
        given = {"arrivals": [0.0, 0.05, 0.1], "prompts": PROMPTS, "new_tokens": [3, 5, 4]}
        served = side.tell("serve", **given, batch=2)
        assert (served["tokens"], len(served["first_s"])) == (12, 3)


def test_all_sides_have_one_number_format():
    assert dtype() in ("fp32", "bf16")


def test_isolation_holds_tokens_and_logits_against_peft(
    base: Base, adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(isolation, "REQUESTS", 40)
    monkeypatch.setattr(isolation, "ROWS", 8)
    monkeypatch.setattr(isolation, "BATCH", 4)
    torch.manual_seed(0)
    case = Case(base, adapters, PROMPTS)
    alone: dict[Pair, tuple[int, ...]] = isolation._alone(case)
    assert set(alone) == set(case.pairs)
    same, control = isolation._tokens(case, alone)
    assert same.verdict is control.verdict is Verdict.OK, (same.line(), control.line())
    swapped = {(key, i): alone[case.neighbour(key), i] for key, i in case.pairs}
    wrong, _ = isolation._tokens(case, swapped)
    assert wrong.verdict is Verdict.SHORT
    right, other = isolation._logits(case, "fp32", alone, DType.FP32, Quantization.NONE)
    assert float(right.figure) < 1e-4
    assert float(other.figure) > 10 * float(right.figure)
