"""The one place that applies the chat template for generation."""

from collections.abc import Mapping, Sequence
from typing import Any


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
    return list(
        tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tools=[dict(tool) for tool in tools] or None,
            chat_template=template,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
            sanitize_control_tokens=True,
        )
    )
