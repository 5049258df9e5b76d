"""A byte-level tokenizer whose chat template, like SmolLM2's, has a system message of its own."""

from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DEFAULT_SYSTEM = "<|im_start|>system\nBe kind.<|im_end|>\n"
CHATML_WITH_DEFAULT = (
    "{% if messages[0]['role'] != 'system' %}" + DEFAULT_SYSTEM + "{% endif %}" + CHATML
)


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[[str], Any]:
    """A tokenizer with the given chat template; one token a byte."""

    def make(template: str) -> PreTrainedTokenizerFast:
        special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocab = {token: i for i, token in enumerate([*special, *alphabet])}
        backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend,
            eos_token="<|im_end|>",
            pad_token="<|endoftext|>",
            additional_special_tokens=["<|im_start|>"],
        )
        tokenizer.chat_template = template
        return tokenizer

    return make


@pytest.fixture(scope="session")
def tokenizer(make_tokenizer: Callable[[str], Any]) -> Any:
    return make_tokenizer(CHATML_WITH_DEFAULT)
