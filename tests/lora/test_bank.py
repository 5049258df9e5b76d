"""The bank against PEFT, row by row, and what it refuses."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import DynamicCache, LlamaForCausalLM

from raylora.config.model_spec import DType, ModelSource, ModelSpec, Quantization
from raylora.errors import InvalidAdapter, NotFound, RayloraError
from raylora.lora import manifest
from raylora.lora.bank import Bank
from raylora.lora.base import load_base
from raylora.lora.devices import Device, DeviceKind
from raylora.lora.eviction import Tier
from raylora.lora.layout import Layouts, Weights
from raylora.lora.plan import Plan
from raylora.lora.sources import LocalModel
from raylora.lora.stacks import Stacks

PROMPTS = torch.randint(3, 259, (7, 9), generator=torch.Generator().manual_seed(1))
KEYS = ["a", None, "b", "a", "c", None, "d"]
STEPS = 6
WEIGHTS = "adapter_model.safetensors"

Adapters = dict[str, Path]


@pytest.fixture
def adapters(make_adapter) -> Adapters:
    """Different ranks, scales and targets."""
    return {
        "a": make_adapter("a", seed=1, r=4, lora_alpha=8),
        "b": make_adapter("b", seed=2, r=16, lora_alpha=24),
        "c": make_adapter("c", seed=3, r=1, lora_alpha=3, target_modules=("q_proj", "v_proj")),
        "d": make_adapter("d", seed=4, r=8, target_modules=("up_proj", "down_proj", "o_proj")),
    }


def bank_of(model: Any, adapters: Adapters, **options: Any) -> Bank:
    bank = Bank(model, **options)
    for key, directory in adapters.items():
        bank.add(key, directory)
    return bank


def peft_of(model: Any, adapters: Adapters) -> PeftModel:
    first, *others = adapters
    peft = PeftModel.from_pretrained(
        model, adapters[first], adapter_name=first, autocast_adapter_dtype=False
    )
    for key in others:
        peft.load_adapter(adapters[key], adapter_name=key, autocast_adapter_dtype=False)
    return peft.eval()


def generate(
    forward: Callable[..., Any], prompts: Tensor, forced: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Greedy tokens (or the forced ones) and the logits of each step."""
    cache, tokens, logits = DynamicCache(), [], []
    current = prompts
    with torch.inference_mode():
        for step in range(STEPS):
            out = forward(input_ids=current, past_key_values=cache, use_cache=True)
            logits.append(out.logits[:, -1])
            current = logits[-1].argmax(-1, keepdim=True)
            if forced is not None:
                current = forced[:, step : step + 1]
            tokens.append(current)
    return torch.cat(tokens, 1), torch.stack(logits, 1)


def with_bank(model: Any, bank: Bank, keys: Sequence[str | None]) -> Callable[..., Any]:
    def forward(**inputs: Any) -> Any:
        with bank.rows(keys):
            return model(**inputs)

    return forward


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


def test_fp32_gives_the_tokens_of_peft_alone(tiny_model, adapters) -> None:
    bank = bank_of(tiny_model, adapters)
    tokens, logits = generate(with_bank(tiny_model, bank, KEYS), PROMPTS)
    wrong, _ = generate(with_bank(tiny_model, bank, ["b", None, "a", *KEYS[3:]]), PROMPTS)
    bank.close()
    peft_tokens, peft_logits = solo(peft_of(tiny_model, adapters))
    assert torch.equal(tokens, peft_tokens)
    assert (logits - peft_logits).abs().max() < 1e-5
    assert not torch.equal(wrong, peft_tokens)  # the comparison does tell adapters apart


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


def test_a_bad_adapter_leaves_the_bank_as_it_was(tiny_model, adapters) -> None:
    bank = bank_of(tiny_model, {"a": adapters["a"]})
    size = bank.bytes
    content = bytearray((adapters["b"] / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (adapters["b"] / WEIGHTS).write_bytes(content)
    with pytest.raises(InvalidAdapter, match="sha256"):
        bank.add("b", adapters["b"])
    assert bank.keys == ("a",)
    assert bank.bytes == size


def test_limits_and_wrong_bases_are_refused(tiny_model, adapters) -> None:
    bank = bank_of(tiny_model, {"a": adapters["a"]}, max_adapters=2, max_r=8)
    with pytest.raises(InvalidAdapter, match="rank 16 is over the limit of 8"):
        bank.add("b", adapters["b"])
    with pytest.raises(InvalidAdapter, match="a is loaded already"):
        bank.add("a", adapters["a"])
    bank.add("c", adapters["c"])
    with pytest.raises(InvalidAdapter, match="full with 2 adapters"):
        bank.add("d", adapters["d"])
    other = Bank(tiny_model, base_revision="rev-2")
    with pytest.raises(InvalidAdapter, match="trained on tiny at rev-1"):
        other.add("a", adapters["a"])


def test_unknown_keys_name_those_that_are_loaded(tiny_model, adapters) -> None:
    bank = bank_of(tiny_model, {"a": adapters["a"]})
    with pytest.raises(NotFound, match="adapter x is not loaded") as caught, bank.rows(["a", "x"]):
        pass
    assert caught.value.hint == "loaded: a"
    with pytest.raises(NotFound):
        bank.remove("x")


def test_an_adapter_in_use_is_not_removed(tiny_model, adapters) -> None:
    bank = bank_of(tiny_model, {"a": adapters["a"], "b": adapters["b"]})
    with bank.rows(["a"]):
        with pytest.raises(RayloraError, match="a is in use"):
            bank.remove("a")
        bank.remove("b")
    bank.pin("a")
    with pytest.raises(RayloraError, match="a is in use"):
        bank.remove("a")
    bank.unpin("a")
    bank.remove("a")
    assert bank.keys == ()
    assert bank.bytes == 0


def test_a_key_can_come_back_with_other_tensors(tiny_model, adapters) -> None:
    bank = bank_of(tiny_model, adapters)
    expected = generate(with_bank(tiny_model, bank, ["b"] * 7), PROMPTS)[1]
    generate(with_bank(tiny_model, bank, ["a"] * 7), PROMPTS)
    bank.remove("a")
    bank.add("a", adapters["b"])
    again = generate(with_bank(tiny_model, bank, ["a"] * 7), PROMPTS)[1]
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-6)


def test_bytes_are_those_of_the_tensors(tiny_model, adapters, make_adapter) -> None:
    bank = bank_of(tiny_model, {"b": adapters["b"]})
    stored = load_file(adapters["b"] / WEIGHTS).values()
    assert bank.bytes == sum(tensor.nbytes for tensor in stored)
    assert bank.bytes == bank.size_of(adapters["b"])
    small = make_adapter("rank 5", r=5)
    assert bank.size_of(small) == bank.size_of(make_adapter("rank 8", r=8))


def test_adapters_used_longest_ago_make_room_and_come_back_from_disk(tiny_model, adapters) -> None:
    room = Bank(tiny_model).size_of(adapters["b"])
    bank = bank_of(tiny_model, {"b": adapters["b"]}, max_bytes=2 * room)
    wanted = generate(with_bank(tiny_model, bank, ["b"] * 7), PROMPTS)[1]
    bank.add("b2", adapters["b"])
    assert (bank.tier("b"), bank.tier("b2")) == (Tier.DEVICE, Tier.HOST)
    generate(with_bank(tiny_model, bank, ["b2"] * 7), PROMPTS)
    bank.add("b3", adapters["b"])
    assert (bank.tier("b"), bank.keys) == (Tier.DISK, ("b2", "b3"))
    with pytest.raises(NotFound, match="b is not loaded"), bank.rows(["b"]):
        pass
    assert bank.reload("b") == ["b2"]
    assert bank.bytes <= 2 * room
    again = generate(with_bank(tiny_model, bank, ["b"] * 7), PROMPTS)[1]
    assert torch.equal(again, wanted)
    bank.remove("b2")
    with pytest.raises(NotFound):
        bank.tier("b2")


def test_a_batch_that_was_served_before_counts_as_a_use(tiny_model, adapters) -> None:
    room = Bank(tiny_model).size_of(adapters["b"])
    bank = bank_of(tiny_model, dict.fromkeys(("b", "b2"), adapters["b"]), max_bytes=2 * room)
    for key in ("b", "b2", "b"):
        with bank.rows([key]):
            pass
    bank.add("b3", adapters["b"])
    assert bank.keys == ("b", "b3")


def test_the_last_adapter_of_a_layout_takes_its_slots_with_it(tiny_model, make_adapter) -> None:
    bank = bank_of(tiny_model, {f"r{r}": make_adapter(f"r{r}", r=r) for r in (8, 16, 32)})
    for key in bank.keys:
        generate(with_bank(tiny_model, bank, [key] * 7), PROMPTS)
    full = bank.device_bytes
    bank.remove("r32")
    assert 0 < bank.device_bytes < full
    for key in bank.keys:
        bank.remove(key)
    assert bank.device_bytes == 0


def test_what_is_pinned_or_in_use_stays_and_a_bad_adapter_moves_nothing(
    tiny_model, adapters
) -> None:
    room = Bank(tiny_model).size_of(adapters["b"])
    bank = bank_of(tiny_model, {"b": adapters["b"]}, max_bytes=room)
    bank.pin("b")
    with pytest.raises(RayloraError, match=f"{room} are in use"):
        bank.add("a", adapters["a"])
    bank.unpin("b")
    with bank.rows(["b"]), pytest.raises(RayloraError, match="in use"):
        bank.add("a", adapters["a"])
    (adapters["a"] / WEIGHTS).write_bytes(b"no adapter")
    with pytest.raises(InvalidAdapter):
        bank.add("a", adapters["a"])
    assert bank.keys == ("b",)
    bank.add("c", adapters["c"])
    assert bank.keys == ("c",)


def test_a_load_is_prepared_beside_a_running_batch(tiny_model, adapters) -> None:
    bank = bank_of(tiny_model, {"a": adapters["a"]})
    with bank.rows(["a"]), ThreadPoolExecutor(1) as elsewhere:
        prepared = elsewhere.submit(bank.prepare, adapters["b"]).result()
        tiny_model(PROMPTS[:1])
    assert bank.admit("b", prepared) == []
    assert bank.keys == ("a", "b")
    with pytest.raises(InvalidAdapter, match="b is loaded already"):
        bank.admit("b", prepared)


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
