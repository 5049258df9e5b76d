"""The bank against PEFT, row by row."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tests.lora.bank.banked import PROMPTS, WEIGHTS, Adapters, bank_of, generate, with_bank
from torch import Tensor
from transformers import LlamaForCausalLM

from raylora.config.model_spec import DType, ModelSource, ModelSpec, Quantization
from raylora.lora import manifest
from raylora.lora.bank.bank import Bank
from raylora.lora.bank.kernel import load
from raylora.lora.bank.layout import Layouts, Weights
from raylora.lora.bank.plan import Plan
from raylora.lora.bank.stacks import Stacks
from raylora.lora.base import load_base
from raylora.lora.devices import Device, DeviceKind
from raylora.lora.sources import LocalModel

KEYS = ["a", None, "b", "a", "c", None, "d"]


@pytest.fixture(params=["kernel", "torch"], autouse=True)
def _products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a C compiler, and without."""
    if request.param == "torch":
        monkeypatch.setattr("raylora.lora.bank.plan.load", lambda *formats: None)


def peft_of(model: Any, adapters: Adapters) -> PeftModel:
    first, *others = adapters
    peft = PeftModel.from_pretrained(
        model, adapters[first], adapter_name=first, autocast_adapter_dtype=False
    )
    for key in others:
        peft.load_adapter(adapters[key], adapter_name=key, autocast_adapter_dtype=False)
    return peft.eval()


def with_peft(model: PeftModel, keys: Sequence[str | None]) -> Callable[..., Any]:
    names = [key or "__base__" for key in keys]
    return lambda **inputs: model(**inputs, adapter_names=names)


def solo(model: PeftModel, forced: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """PEFT with batch 1, row after row."""
    rows = [
        generate(
            with_peft(model, [key]),
            PROMPTS[row : row + 1],
            None if forced is None else forced[row : row + 1],
        )
        for row, key in enumerate(KEYS)
    ]
    return torch.cat([tokens for tokens, _ in rows]), torch.cat([logits for _, logits in rows])


def in_bf16(directory: Path) -> None:
    """Write an adapter's numbers anew in bf16."""
    stored = {name: t.bfloat16() for name, t in load_file(directory / WEIGHTS).items()}
    save_file(stored, directory / WEIGHTS, metadata={"format": "pt"})
    manifest.write(directory, {"base": {"id": "tiny", "revision": "rev-1"}})


def test_fp32_gives_the_tokens_of_peft_alone(tiny_model, adapters) -> None:
    bank = bank_of(tiny_model, adapters)
    tokens, logits = generate(with_bank(tiny_model, bank, KEYS), PROMPTS)
    wrong, _ = generate(with_bank(tiny_model, bank, ["b", None, "a", *KEYS[3:]]), PROMPTS)
    bank.close()
    peft_tokens, peft_logits = solo(peft_of(tiny_model, adapters))
    assert torch.equal(tokens, peft_tokens)
    assert (logits - peft_logits).abs().max() < 1e-5
    assert not torch.equal(wrong, peft_tokens)  # the comparison does tell adapters apart


def test_files_in_bf16_are_left_so_beside_others_and_compute_in_fp32(
    tiny_model, make_adapter
) -> None:
    same_layout = {"a": {"lora_alpha": 8}, "b": {"lora_alpha": 6}}
    other = {"c": {"r": 1, "target_modules": ("q_proj",)}, "d": {"r": 8}}
    adapters = {
        key: make_adapter(key, seed=seed, **fields)
        for seed, (key, fields) in enumerate((same_layout | other).items())
    }
    in_bf16(adapters["a"])
    in_bf16(adapters["d"])
    bank = bank_of(tiny_model, adapters)
    sizes = {key: bank_of(tiny_model, {key: adapters[key]}).bytes for key in ("a", "b")}
    assert sizes["b"] == (2 * sizes["a"] if load(torch.float32, torch.bfloat16) else sizes["a"])
    tokens, logits = generate(with_bank(tiny_model, bank, KEYS), PROMPTS)
    bank.close()
    peft_tokens, peft_logits = solo(peft_of(tiny_model, adapters))
    assert torch.equal(tokens, peft_tokens)
    assert (logits - peft_logits).abs().max() < 1e-5


@pytest.mark.parametrize("quantization", list(Quantization))
def test_bf16_and_few_bits_differ_from_peft_no_more_than_peft_from_itself(
    tiny_base, adapters, quantization
) -> None:
    local = LocalModel(tiny_base, "tiny", "rev-1", "tiny")
    spec = ModelSpec(source=ModelSource.PATH, dtype=DType.BF16, quantization=quantization)
    model = load_base(local, spec, Device(DeviceKind.CPU))
    bank = bank_of(model, adapters)
    forced, logits = generate(with_bank(model, bank, KEYS), PROMPTS)
    wrong = generate(with_bank(model, bank, ["b", *KEYS[1:]]), PROMPTS, forced)[1]
    bank.close()

    peft = peft_of(model, adapters)
    for name, parameter in peft.named_parameters():
        if "lora_" in name:  # on a quantised layer PEFT leaves them in the file's fp32
            parameter.data = parameter.data.to(torch.bfloat16)
    mixed = generate(with_peft(peft, KEYS), PROMPTS, forced)[1].float()
    alone = solo(peft, forced)[1].float()
    own = (mixed - alone).abs().max()
    assert (logits.float() - mixed).abs().max() <= own
    assert (wrong.float() - mixed).abs().max() > own


def test_rows_without_an_adapter_are_the_base_to_the_bit(tiny_model, adapters) -> None:
    bank = bank_of(tiny_model, adapters)
    _, base = generate(tiny_model, PROMPTS)
    _, none = generate(with_bank(tiny_model, bank, [None] * 7), PROMPTS)
    assert torch.equal(none, base)
    forced, mixed = generate(with_bank(tiny_model, bank, KEYS), PROMPTS)
    base_on_the_same = generate(tiny_model, PROMPTS, forced)[1]
    for row, key in enumerate(KEYS):
        assert torch.equal(mixed[row], base_on_the_same[row]) == (key is None)


def test_any_sequence_of_compositions_gives_the_same_numbers(tiny_model, adapters) -> None:
    """Slots are moved, given up and reused; a row's numbers must not notice."""
    bank = bank_of(tiny_model, adapters)
    token = torch.tensor([[7]])
    with torch.inference_mode():
        wanted = {}
        for key in (None, *adapters):
            with bank.rows([key]):
                wanted[key] = tiny_model(token).logits[0]
        generator = torch.Generator().manual_seed(3)
        choices = [None, *adapters]
        for _ in range(60):
            size = int(torch.randint(1, 9, (), generator=generator))
            picks = torch.randint(0, len(choices), (size,), generator=generator).tolist()
            keys = [choices[pick] for pick in picks]
            with bank.rows(keys):
                logits = tiny_model(token.expand(size, 1)).logits
            for row, key in enumerate(keys):
                torch.testing.assert_close(logits[row], wanted[key], rtol=0, atol=2e-6)


def test_patterns_and_rslora_scale_as_in_peft(tiny_model, tmp_path: Path) -> None:
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["q_proj", "k_proj", "down_proj"],
        rank_pattern={"down_proj": 12, "layers.1.self_attn.q_proj": 2},
        alpha_pattern={"k_proj": 10},
        use_rslora=True,
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    peft = get_peft_model(tiny_model, config).eval()
    peft.save_pretrained(str(tmp_path / "a"))
    (tmp_path / "a" / "README.md").unlink()
    wanted = generate(peft, PROMPTS)
    base: Any = peft.unload()
    bank = Bank(base)
    facts = bank.add("a", tmp_path / "a", manifest_required=False)
    tokens, logits = generate(with_bank(base, bank, ["a"] * 7), PROMPTS)
    assert facts.r == 12
    assert torch.equal(tokens, wanted[0])
    assert (logits - wanted[1]).abs().max() < 1e-5


def test_what_overflows_in_one_adapter_does_not_reach_the_others(tiny_model, adapters) -> None:
    tensors = load_file(adapters["b"] / WEIGHTS)
    for name, tensor in tensors.items():
        if "lora_A" in name:
            tensor.fill_(1e38)
    save_file(tensors, adapters["b"] / WEIGHTS)
    manifest.write(adapters["b"], {})
    bank = bank_of(tiny_model, adapters)
    keys = ["a", "b", None]
    _, alone = generate(with_bank(tiny_model, bank, ["a", None, None]), PROMPTS[:3])
    _, mixed = generate(with_bank(tiny_model, bank, keys), PROMPTS[:3])
    assert not mixed[1].isfinite().all()
    torch.testing.assert_close(mixed[[0, 2]], alone[[0, 2]], rtol=0, atol=1e-5)


def test_a_prompt_that_joins_leaves_the_running_batch_where_it_is(tiny_model, adapters) -> None:
    bank = bank_of(tiny_model, adapters)
    with torch.inference_mode():
        with bank.rows(["b", "a"]):
            before = tiny_model(PROMPTS[:2, :1]).logits
        with bank.rows(["d"]):
            tiny_model(PROMPTS[:1])
        with bank.rows(["b", "a"]):
            assert torch.equal(tiny_model(PROMPTS[:2, :1]).logits, before)


def test_every_tensor_of_a_plan_is_on_the_device(make_adapter) -> None:
    """The meta device stands for one that refuses indices on the CPU."""
    shapes = {"q_proj": (8, 8)}
    meta = torch.device("meta")
    stacks = Stacks(torch.float32, meta)
    layout = Layouts(shapes).of(("q_proj",), 4)
    held = Weights(layout, torch.zeros(layout.size, device=meta), {"q_proj": 4}, {"q_proj": 1.5})
    plan = Plan(["x", None, "x", "y"], {"x": held, "y": held}, stacks)
    for tokens in (1, 3):
        x, out = torch.zeros(4, tokens, 8, device=meta), torch.zeros(4, tokens, 8, device=meta)
        plan.add("q_proj", x, out)


def test_a_batch_of_another_size_is_an_error(tiny_model, adapters) -> None:
    bank = bank_of(tiny_model, adapters)
    with bank.rows(["a", "b"]), pytest.raises(ValueError, match="rows\\(\\) announced 2 rows"):
        tiny_model(PROMPTS[:3])


def test_closing_gives_the_base_back(tiny_model: LlamaForCausalLM, adapters) -> None:
    bank = bank_of(tiny_model, adapters)
    bank.close()
    base = tiny_model(PROMPTS[:1]).logits
    with bank.rows(["a"]):
        assert torch.equal(tiny_model(PROMPTS[:1]).logits, base)
