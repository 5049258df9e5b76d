"""The engine over the real bank: each row gets the tokens that PEFT alone gives it."""

import random
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import LlamaForCausalLM

from raylora.config.lora_spec import LoraSpec
from raylora.engine.generator import Engine, generate
from raylora.engine.request import Request
from raylora.engine.sampling import Sampling
from raylora.engine.scoring import score
from raylora.lora.attach import attach, save_adapter
from raylora.lora.bank.bank import Bank
from raylora.lora.sources import LocalModel

RANKS = {"a": 4, "b": 8, "c": 2}


def fresh(model: LlamaForCausalLM) -> LlamaForCausalLM:
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory, small_llama) -> dict[str, Path]:
    """Three adapters of different rank whose answers differ from the base's and each other's."""
    folder = tmp_path_factory.mktemp("adapters")
    base = LocalModel(path=folder, id="small", revision="1", name="small")
    for seed, (name, rank) in enumerate(RANKS.items()):
        model = attach(fresh(small_llama), LoraSpec(r=rank), seed=seed)
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.3)
        save_adapter(model, folder / name, base, {})
    return {name: folder / name for name in RANKS}


@pytest.fixture
def bank(small_llama, adapters):
    made = Bank(small_llama)
    for name, directory in adapters.items():
        made.add(name, directory)
    yield made
    made.close()


@pytest.fixture(scope="module")
def solo(small_llama, adapters):
    """Models with one adapter each, and the base alone."""
    models: dict = {None: fresh(small_llama)}
    for name, directory in adapters.items():
        models[name] = PeftModel.from_pretrained(fresh(small_llama), directory).eval()
    return models


def mixed_requests(count: int) -> list[Request]:
    draw = random.Random(3)
    return [
        Request(
            f"r{i}",
            tuple(draw.randrange(3, 259) for _ in range(draw.choice((1, 2, 17, 120)))),
            draw.choice([None, *RANKS]),
            Sampling(max_new_tokens=draw.choice((2, 12, 40))),
        )
        for i in range(count)
    ]


def test_mixed_rows_get_the_tokens_of_peft_alone(small_llama, tiny_tokenizer, bank, solo):
    requests = mixed_requests(40)
    engine = Engine(small_llama, tiny_tokenizer, bank, max_batch_size=7)
    for wanted, completion in zip(requests, generate(engine, requests), strict=True):
        prompt = torch.tensor([wanted.prompt_ids])
        alone = solo[wanted.adapter].generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=wanted.sampling.max_new_tokens,
            do_sample=False,
        )
        assert list(completion.token_ids) == alone[0, prompt.shape[1] :].tolist()


def test_another_adapter_gives_other_tokens(small_llama, tiny_tokenizer, bank):
    engine = Engine(small_llama, tiny_tokenizer, bank, max_batch_size=4)
    sampling = Sampling(max_new_tokens=20)
    names = [None, *RANKS]
    requests = [Request(str(name), (50, 60, 70), name, sampling) for name in names]
    answers = {completion.token_ids for completion in generate(engine, requests)}
    assert len(answers) == len(names)


def test_scored_logits_are_those_of_peft(small_llama, bank, solo):
    rows = [([5, 6, 7, 8], "a"), ([9] * 30, None), ([3, 4], "b"), ([3, 4], "c")]
    for (ids, name), logits in zip(rows, score(small_llama, bank, rows), strict=True):
        alone = solo[name](torch.tensor([ids])).logits[0]
        torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-4)
