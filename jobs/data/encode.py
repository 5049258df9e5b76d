"""Conversations to token ids, with labels on the assistant's answers only.

The sequence is what the model meets when it generates: each answer follows the very prompt that
`chat_prompt` renders for it. A default system message of the template is in both, or in neither.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jinja2 import TemplateError

from raylora.config.data_spec import DataSpec
from raylora.engine.prompts import chat_prompt
from raylora.errors import InvalidData
from raylora.jobs.data.conversation import Message, Role
from raylora.jobs.data.rows import Rows

IGNORED: Final = -100
"""Label of a position that is not supervised; what torch's cross entropy ignores."""


@dataclass(frozen=True)
class Example:
    """Token ids of one row and, at the same positions, the labels."""

    input_ids: list[int]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def supervised_tokens(self) -> int:
        """Positions whose next token is a label."""
        return sum(label != IGNORED for label in self.labels[1:])


def encode(rows: Rows, tokenizer: Any, data: DataSpec) -> list[Example]:
    """Encode every row; supervised are all answers, each with its end-of-turn token.

    Raises InvalidData for a row that is longer than data.max_length, or that the chat template
    does not render in a way that shows where the answers are.
    """
    examples: list[Example] = []
    controls = _control_tokens(tokenizer)
    for row in rows:
        try:
            example = _encode(row.conversation(data.system_prompt), tokenizer, controls)
        except (TemplateError, ValueError) as error:  # transformers raises ValueError
            raise InvalidData(
                f"the chat template cannot be used: {error}",
                file=rows.file,
                line=row.line,
                hint="change the row so that the template takes it, or use a model with another",
            ) from error
        if len(example) > data.max_length:
            raise InvalidData(
                f"{len(example)} tokens, {example.supervised_tokens} of them answers, are more "
                f"than data.max_length={data.max_length}",
                file=rows.file,
                line=row.line,
                hint=f"shorten or drop the row, or set data.max_length to {len(example)} or more",
            )
        if example.supervised_tokens == 0:
            raise InvalidData(
                f"none of its {len(example)} tokens is part of an answer",
                file=rows.file,
                line=row.line,
                hint="write an answer, or drop the row",
            )
        examples.append(example)
    return examples


class _UnclearMask(ValueError):
    """The place of an answer cannot be told from the rendered conversation."""


def _control_tokens(tokenizer: Any) -> frozenset[int]:
    added = tokenizer.added_tokens_decoder.items()
    return frozenset([*tokenizer.all_special_ids, *(i for i, token in added if token.special)])


def _encode(messages: Sequence[Message], tokenizer: Any, controls: Container[int]) -> Example:
    input_ids = _render(tokenizer, messages)
    labels = [IGNORED] * len(input_ids)
    for turn, message in enumerate(messages):
        if message["role"] == Role.ASSISTANT:
            start, stop = _answer(tokenizer, messages[: turn + 1], input_ids, controls)
            labels[start:stop] = input_ids[start:stop]
    return Example(input_ids, labels)


def _answer(
    tokenizer: Any,
    messages: Sequence[Message],
    input_ids: list[int],
    controls: Container[int],
) -> tuple[int, int]:
    """Where the last of these messages, up to its end-of-turn token, lies in the whole row.

    Found by rendering the prompt alone and the conversation up to the answer: both must be
    prefixes of the whole, or else the model would train on a prompt that it never meets.
    """
    prompt = chat_prompt(tokenizer, messages[:-1])
    so_far = _render(tokenizer, messages)
    start = len(prompt)
    if input_ids[:start] != prompt:
        raise _UnclearMask(
            f"the prompt of message {len(messages) - 1} is no prefix of the whole conversation; "
            "an answer that begins with white space can be the cause"
        )
    if input_ids[: len(so_far)] != so_far:
        raise _UnclearMask(
            f"message {len(messages) - 1} is rendered otherwise when more messages follow"
        )
    # A control token written inside the answer is encoded as plain text, so the first real one
    # is the template's. What follows it (a line break in ChatML) is never generated.
    end = next((i for i in range(start, len(so_far)) if so_far[i] in controls), None)
    if end is None:
        raise _UnclearMask(f"no control token ends message {len(messages) - 1}")
    return start, end + 1


def _render(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    return list(
        tokenizer.apply_chat_template(
            list(messages),
            tokenize=True,
            return_dict=False,
            sanitize_control_tokens=True,
        )
    )
