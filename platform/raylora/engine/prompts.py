"""The one place that applies the chat template for generation."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

PRIVATE = "\ue000-\uf8ff\U000f0000-\U0010ffff"
"""Characters of private use: transformers marks control tokens in messages with some of them."""


def chat_prompt(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
    template: str | None = None,
) -> list[int]:
    """Token ids of a conversation up to where the assistant's answer begins.

    tools: JSON schemas of functions, for templates that show them.
    template: the one an adapter was trained with, where it is not the tokenizer's.
    Control tokens written inside a message are encoded as plain text, so that a user cannot
    forge another role's turn.
    """
    asked: dict[str, Any] = {"chat_template": template, "add_generation_prompt": True}
    if not tools and _is_harmless(tokenizer, messages):
        # Looking for control tokens in what was rendered costs as much as all the rest: 100 us.
        text = tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, **asked
        )
        return _encoded(tokenizer, text)
    return list(
        tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tools=[dict(tool) for tool in tools] or None,
            tokenize=True,
            return_dict=False,
            sanitize_control_tokens=True,
            **asked,
        )
    )


def _encoded(tokenizer: Any, text: str) -> list[int]:
    """As tokenizer.encode, whose own work costs 65 us, as long as no setting wants any of it."""
    if tokenizer.is_fast:
        backend = tokenizer.backend_tokenizer
        if not (backend.encode_special_tokens or backend.truncation or backend.padding):
            return backend.encode(text, add_special_tokens=False).ids
    return tokenizer.encode(text, add_special_tokens=False)


def _is_harmless(tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether messages are texts without anything in them that the tokenizer reads as control."""
    found = _control_tokens(tokenizer, len(tokenizer)).search
    return all(
        isinstance(value, str) and found(value) is None
        for message in messages
        for value in message.values()
    )


@lru_cache(16)
def _control_tokens(tokenizer: Any, size: int) -> re.Pattern[str]:
    """Of a tokenizer of this size: it grows where tokens are added."""
    tokens = map(re.escape, tokenizer.added_tokens_encoder)
    return re.compile("|".join([*tokens, f"[{PRIVATE}]"]))
