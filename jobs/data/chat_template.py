"""A tokenizer's chat template: which one, what it renders, which tokens end an answer."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from jinja2 import TemplateError

from raylora.config.data_spec import DataSpec
from raylora.errors import InvalidData
from raylora.jobs.data.conversation import Message, Role
from raylora.jobs.data.records import BadLine

Tools = Sequence[Mapping[str, Any]]


def use_template(tokenizer: Any, data: DataSpec, base_dir: Path) -> Any:
    """Give the tokenizer the template of data.chat_template, where the spec names one.

    Raises InvalidData where the file cannot be read.
    """
    if data.chat_template is not None:
        path = base_dir / data.chat_template
        try:
            tokenizer.chat_template = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidData(
                f"the chat template cannot be read: {error}",
                file=str(path),
                hint="give data.chat_template the path of a Jinja file in UTF-8",
            ) from error
    return tokenizer


class ChatTemplate:
    """Renders conversations as text or as token ids, and knows what the template itself writes."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self.control_ids: frozenset[int] = frozenset(
            [*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)]
        )
        controls = tokenizer.convert_ids_to_tokens(sorted(self.control_ids))
        self.control_pattern = _any_of(controls)
        self._forgeable = _any_of([*(token.content for token in added.values()), *_MARKS])

    def text(self, messages: Sequence[Message], tools: Tools, *, prompt: bool) -> str:
        """What the template makes of messages; with `prompt`, up to where an answer begins.

        Raises BadLine where the template fails.
        """
        return self._apply(messages, tools, prompt, tokenize=False)

    def ids(self, messages: Sequence[Message], tools: Tools, *, prompt: bool) -> list[int]:
        """The same as token ids; control tokens written inside a message stay plain text."""
        given: dict[str, Any] = {"return_dict": False, "sanitize_control_tokens": True}
        return list(self._apply(messages, tools, prompt, tokenize=True, **given))

    def could_forge(self, value: object) -> bool:
        """Whether some text inside holds what the tokenizer would read as a token of its own."""
        match value:
            case str():
                return self._forgeable.search(value) is not None
            case dict():
                return any(map(self.could_forge, value.values()))
            case list() | tuple():
                return any(map(self.could_forge, value))
            case _:
                return False

    @cached_property
    def ends(self) -> tuple[str, ...]:
        """The control tokens that end an answer: after the last one, and amid a conversation.

        They can differ. Raises BadLine where none follows the answer of a plain conversation.
        """
        asked, answer = {"role": Role.USER.value}, {"role": Role.ASSISTANT.value}
        chat = [asked | {"content": "A"}, answer | {"content": _PROBE}, asked | {"content": "B"}]
        found: dict[str, None] = {}
        for conversation in (chat[:2], chat):
            text = self.text(conversation, (), prompt=False)
            end = re.compile(r"\s*(" + self.control_pattern.pattern + ")").match(
                text, text.find(_PROBE) + len(_PROBE)
            )
            if _PROBE not in text or end is None:
                raise BadLine(
                    "the chat template cannot be used: no control token ends an answer",
                    "set data.chat_template to a template that ends each answer with one",
                )
            found[end[1]] = None
        return tuple(found)

    def check_tools(self, tools: Tools) -> None:
        """Raise BadLine where there are tools and the template leaves them out in silence."""
        if tools and not self._shows_tools:
            raise BadLine(
                "the chat template cannot be used: it does not show tools, and the row has some",
                "set data.chat_template to one that does, or drop the column tools",
            )

    @cached_property
    def _shows_tools(self) -> bool:
        tool = {"type": "function", "function": {"name": _PROBE, "parameters": {}}}
        asked = [{"role": Role.USER.value, "content": "A"}]
        return _PROBE in self.text(asked, [tool], prompt=True)

    @cached_property
    def end_pattern(self) -> re.Pattern[str]:
        """Matches any of `ends`."""
        return _any_of(self.ends)

    def _apply(self, messages: Sequence[Message], tools: Tools, prompt: bool, **how: Any) -> Any:
        try:
            return self._tokenizer.apply_chat_template(
                list(messages), tools=list(tools) or None, add_generation_prompt=prompt, **how
            )
        # A template runs code: on a row that it does not expect it can fail in any of these ways.
        except (TemplateError, ValueError, TypeError, LookupError, RecursionError) as error:
            raise BadLine(
                f"the chat template cannot be used: {error}",
                "change the row so that the template takes it, or set data.chat_template",
            ) from error


_PROBE: Final = "QUINCE"
"""An answer, or the name of a tool, that no template contains."""

_MARKS: Final = ("\U000f0000", "\U000f0001")
"""What transformers marks control tokens inside messages with, and drops from the text."""


def _any_of(texts: Sequence[str]) -> re.Pattern[str]:
    """Longer ones first, as a tokenizer matches them."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or "(?!)")
