"""A step by its list of calls is the step by the model's modules."""

import gc
import os
import shutil
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.families import FAMILIES, SIZES
from transformers import MistralConfig, MistralForCausalLM

from raylora.config.lora_spec import LoraSpec
from raylora.engine.runner import Runner
from raylora.engine.step import few_rows, program
from raylora.engine.step.program import fits
from raylora.lora.attach import attach, save_adapter
from raylora.lora.bank.bank import Bank
from raylora.lora.narrow import narrow
from raylora.lora.sources import LocalModel

pytestmark = pytest.mark.skipif(
    shutil.which(os.environ.get("CC", "cc")) is None, reason="there is no C compiler"
)

Make = Callable[[], Any]


def mistral() -> Any:
    torch.manual_seed(0)
    config = MistralConfig(**SIZES, sliding_window=None)
    return MistralForCausalLM(config).requires_grad_(False).eval()


MODELS: dict[str, Make] = {
    **{name: FAMILIES[name].make_model for name in ("llama", "qwen2", "qwen3", "smollm")},
    "mistral": mistral,
}
MIXTURES: dict[str, list[str | None]] = {
    "base": [None] * 6,
    "one layout": ["a0", "a3", None, "a0", "a3", "a0"],
    "layouts and scales": ["a0", "a1", None, "a2", "a1", "a0"],
}
IDS = torch.randint(3, 259, (8, 30), generator=torch.Generator().manual_seed(0)).tolist()


def adapters(make: Make, folder: Any, dtype: torch.dtype) -> dict[str, Any]:
    """Different ranks, scales and layers."""
    fields: list[dict[str, Any]] = [
        {"r": 4, "lora_alpha": 8},
        {"r": 16, "lora_alpha": 24},
        {"r": 3, "target_modules": ("q_proj", "v_proj", "down_proj")},
        {"r": 3, "lora_alpha": 12},
    ]
    made: dict[str, Any] = {}
    for seed, own in enumerate(fields):
        model = attach(make().to(dtype), LoraSpec.model_validate(own), seed)
        draw = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0, 0.1, generator=draw)
        made[f"a{seed}"] = folder / f"a{seed}"
        save_adapter(model, made[f"a{seed}"], LocalModel(folder, "tiny", "r", "tiny"), {})
    return made


def run(runner: Runner, keys: list[str | None]) -> list[torch.Tensor]:
    """Logits of some steps of rows that join and leave."""
    found: list[torch.Tensor] = []

    def join(rows: range) -> None:
        prompts = [IDS[row][: 3 + 4 * row] for row in rows]
        group = runner.begin(prompts, [keys[row] for row in rows], [None] * len(rows))
        while group.left:
            runner.prefill(group, 1 << 20)
        runner.join(group, range(len(rows)), 1)  # so that the cache is enlarged on the way

    def decode(rows: int, steps: int) -> None:
        for step in range(steps):
            tokens = [IDS[-1][(row + 5 * step) % 30] for row in range(rows)]
            found.append(runner.decode(tokens).clone())

    join(range(3))
    decode(3, 3)
    join(range(3, 6))
    decode(6, 2)
    runner.leave(1)
    decode(5, 2)
    runner.leave(4)
    decode(4, 20)
    return found


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Has runners made from now on do without programs."""
    return lambda: monkeypatch.setattr(program, "fits", lambda model: False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("mixture", MIXTURES)
def test_logits_are_those_of_the_modules(
    family: str, dtype: torch.dtype, mixture: str, tmp_path, modules
) -> None:
    make, keys = MODELS[family], MIXTURES[mixture]
    written = adapters(make, tmp_path, dtype) if any(keys) else {}

    def answered() -> tuple[Any, list[torch.Tensor]]:
        model = make().to(dtype)
        bank = Bank(model)
        for key, directory in written.items():
            bank.add(key, directory)
        runner = Runner(model, bank)
        return model, run(runner, keys)

    model, found = answered()
    assert fits(model)
    modules()
    _, wanted = answered()
    for own, other in zip(found, wanted, strict=True):
        atol = 1e-5 if dtype is torch.float32 else 1e-2
        torch.testing.assert_close(own, other, rtol=1e-4, atol=atol)


def test_rows_that_the_layers_own_products_take(modules, monkeypatch) -> None:
    def answered() -> list[torch.Tensor]:
        model = MODELS["llama"]()
        return run(Runner(model, Bank(model)), [None] * 6)

    for most in ("MOST_ROWS", "MOST_BY_HALVES"):
        monkeypatch.setattr(few_rows, most, 4)
    found = answered()
    modules()
    for own, other in zip(found, answered(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


def test_weights_kept_in_bf16(modules) -> None:
    def answered() -> list[torch.Tensor]:
        model = FAMILIES["smollm"].make_model().bfloat16().float().requires_grad_(False)
        assert narrow(model)
        return run(Runner(model, Bank(model)), [None] * 6)

    found = answered()
    modules()
    for own, other in zip(found, answered(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-5)


def test_an_adapter_that_comes_back_under_its_name_is_the_new_one(tmp_path, modules) -> None:
    make = MODELS["llama"]
    written = adapters(make, tmp_path, torch.float32)

    def answered() -> list[torch.Tensor]:
        model = make()
        bank = Bank(model)
        runner = Runner(model, bank)
        found: list[torch.Tensor] = []
        for directory in written.values():
            bank.add("a", directory)
            found += run(runner, ["a"] * 6)
            for _ in range(4):
                runner.leave(0)
            bank.remove("a")
        return found

    found = answered()
    assert not torch.allclose(found[0], found[len(found) // len(written)], atol=1e-2)
    modules()
    for own, other in zip(found, answered(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mixture", ["base", "one layout"])
def test_a_program_serves_batches_of_up_to_half_its_rows(mixture: str, tmp_path) -> None:
    make = MODELS["llama"]
    model = make()
    bank = Bank(model)
    for key, directory in adapters(make, tmp_path, torch.float32).items():
        bank.add(key, directory)
    runner = Runner(model, bank)
    run(runner, MIXTURES[mixture])  # six rows, then four
    made = [runner._programs._program]
    for _ in range(3):
        runner.leave(0)
        runner.decode([5] * len(runner._keys))
        made.append(runner._programs._program)
    four, three, two, one = made
    assert four is three and len({four, two, one}) == 3


@pytest.mark.parametrize("family", ["mistral", "phi", "phi3", "gemma", "gemma2", "smollm3"])
def test_models_that_compute_otherwise_go_by_their_modules(family: str) -> None:
    model = FAMILIES[family].make_model()
    Runner(model, Bank(model))
    assert not fits(model)


def test_a_model_in_training_goes_by_its_modules() -> None:
    adapted: Any = attach(FAMILIES["llama"].make_model(), LoraSpec(r=4), 0)
    model = adapted.base_model.model
    Runner(model, Bank(model))
    assert not fits(model)


def test_when_no_rows_are_left_nothing_holds_their_adapters(tmp_path) -> None:
    make = MODELS["llama"]
    model = make()
    bank = Bank(model)
    bank.add("a", adapters(make, tmp_path, torch.float32)["a0"])
    weights = weakref.ref(bank._adapters["a"].flat)
    runner = Runner(model, bank)
    run(runner, ["a"] * 6)
    [stack] = map(weakref.ref, bank._stacks._stacks.values())
    for _ in range(4):
        runner.leave(0)
    bank.remove("a")
    gc.collect()
    assert weights() is stack() is None
