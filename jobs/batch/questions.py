"""What the rows of a file ask, in any shape that training takes, with or without the answers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from raylora.config.data_spec import DataSpec, SourceSpec
from raylora.jobs.data.conversation import Conversation, Message
from raylora.jobs.data.records import BadLine, Fault, Place
from raylora.jobs.data.shapes import Shaper
from raylora.jobs.data.sources import records


@dataclass(frozen=True)
class Question:
    """A conversation up to where the assistant's answer begins."""

    row: int
    """1-based, over all files of the input."""
    id: str | None
    """The row's own name: its column custom_id or id."""
    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()

    def prompted(self, system_prompt: str | None) -> tuple[Message, ...]:
        """With the system prompt in front where there is one and the row has none of its own."""
        if not system_prompt:
            return self.messages
        return (
            Conversation(self.messages, (1.0,) * len(self.messages))
            .prompted(system_prompt)
            .messages
        )


@dataclass(frozen=True)
class Unasked:
    """A row that asks nothing, and why."""

    row: int
    id: str | None
    reason: str


def questions(source: str, base_dir: Path) -> Iterator[Question | Unasked]:
    """Yield what each row asks, in order. Raises InvalidData for a file that cannot be read."""
    given = SourceSpec(source=source)
    shaper = Shaper(given, DataSpec())
    for row, found in enumerate(records(given, base_dir), start=1):
        if isinstance(found, Fault):
            yield Unasked(row, None, _reason(found.place, found.problem))
            continue
        fields = _body(found.fields)
        name = _id(found.fields)
        try:
            content = shaper.convert(_with_answer(fields))
            if not isinstance(content, Conversation):
                raise BadLine("plain text asks nothing", "write it as a prompt or as messages")
        except BadLine as problem:
            yield Unasked(row, name, _reason(found.place, problem))
            continue
        yield Question(row, name, content.messages[:-1], content.tools)


_PLACEHOLDER: Final = "-"
"""Stands where the answer will be, so that what checks training rows checks these."""


def _with_answer(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The row as a training row: with an answer, which is not shown to the model."""
    given = dict(fields)
    for column, speaker, text in (
        ("messages", "role", "content"),
        ("conversations", "from", "value"),
    ):
        turns = given.get(column)
        if (
            isinstance(turns, list)
            and turns
            and not _is_answer(cast(list[Any], turns)[-1], speaker)
        ):
            given[column] = [*cast(list[Any], turns), {speaker: "assistant", text: _PLACEHOLDER}]
    for asked, answer in (("prompt", "completion"), ("instruction", "output")):
        if asked in given:
            given[answer] = given.get(answer) or _PLACEHOLDER
    return given


def _is_answer(turn: object, speaker: str) -> bool:
    return isinstance(turn, dict) and cast(dict[str, Any], turn).get(speaker) in _ANSWERERS


_ANSWERERS: Final = ("assistant", "gpt", "chatgpt", "bot", "model")


def _body(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """A line of OpenAI's batch files has the request inside."""
    body = fields.get("body")
    return cast(dict[str, Any], body) if isinstance(body, dict) else fields


def _id(fields: Mapping[str, Any]) -> str | None:
    value = fields.get("custom_id", fields.get("id"))
    return None if value is None else str(value)


def _reason(place: Place, problem: BadLine) -> str:
    return f"{Path(place.file).name}:{place.line}: {problem}"
