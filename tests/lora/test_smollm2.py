"""The real base by the real path: package, GGUF, cache, then bank against PEFT."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from raylora.config.lora_spec import LoraSpec
from raylora.config.model_spec import ModelSpec, Quantization
from raylora.config.places import cache
from raylora.lora.attach import attach, save_adapter
from raylora.lora.bank.bank import Bank
from raylora.lora.base import compute_dtype, load_base, load_tokenizer
from raylora.lora.devices import pick
from raylora.lora.sources import LocalModel, fetch

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def smollm2() -> LocalModel:
    return fetch(ModelSpec(), cache())


def test_the_tokenizer_is_that_of_the_model(smollm2: LocalModel) -> None:
    tokenizer = load_tokenizer(smollm2)
    text = tokenizer.apply_chat_template(
        [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert text == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
    )
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    assert tokenizer.encode("<|im_start|>") == [1]
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("at  20")) == [
        "at",
        "\u0120\u0120",
        "2",
        "0",
    ]
    assert (
        tokenizer.decode(tokenizer.encode("h\u00e9llo\n\n {'a': 1.5}"))
        == "h\u00e9llo\n\n {'a': 1.5}"
    )


@pytest.mark.parametrize("quantization", list(Quantization))
def test_the_base_answers_and_the_bank_equals_peft(
    smollm2: LocalModel, quantization: Quantization, tmp_path: Path
) -> None:
    spec = ModelSpec(quantization=quantization)
    base: Any = load_base(smollm2, spec, pick())
    tokenizer = load_tokenizer(smollm2)
    prompt: Any = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        answer = base.generate(**prompt, max_new_tokens=8, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])

    model = attach(base, LoraSpec(), seed=0)
    for key in ("a", "b"):
        generator = torch.Generator().manual_seed(ord(key))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0, 0.02, generator=generator)
        save_adapter(model, tmp_path / key, smollm2, {})
    base = model.unload()
    keys = ["a", None, "b", "a"]
    ids = prompt["input_ids"].expand(4, -1)

    bank = Bank(base, base_revision=smollm2.revision)
    for key in ("a", "b"):
        bank.add(key, tmp_path / key)
    with torch.inference_mode():
        with bank.rows(keys):
            mixed = base(ids).logits
        plain = base(ids).logits
    bank.close()
    assert torch.equal(mixed[1], plain[1])
    assert not torch.equal(mixed[0], mixed[2])

    peft = PeftModel.from_pretrained(
        base, tmp_path / "a", adapter_name="a", autocast_adapter_dtype=False
    )
    peft.load_adapter(tmp_path / "b", adapter_name="b", autocast_adapter_dtype=False)
    for name, parameter in peft.named_parameters():
        if "lora_" in name:  # on a quantised layer PEFT computes them in fp32
            parameter.data = parameter.data.to(compute_dtype(base))
    names = [key or "__base__" for key in keys]
    with torch.inference_mode():
        wanted = peft.eval()(ids, adapter_names=names).logits
        alone = torch.cat([peft(ids[:1], adapter_names=[name]).logits for name in names])
    assert (mixed - wanted).abs().max() <= (wanted - alone).abs().max()
