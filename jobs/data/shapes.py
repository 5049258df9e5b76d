"""How rows spell a conversation: recognised by the columns of the first, or named by the spec."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from raylora.config.data_spec import DataSpec, Shape, SourceSpec
from raylora.errors import InvalidConfig, Problem
from raylora.jobs.data import sharegpt
from raylora.jobs.data.conversation import (
    Content,
    Conversation,
    Message,
    Role,
    conversation,
    plain_text,
    text_in,
)
from raylora.jobs.data.kinds import joined, kind
from raylora.jobs.data.records import BadLine
from raylora.jobs.data.row_template import RowTemplate
from raylora.jobs.data.tool_calls import tools

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Form:
    """One shape: its columns, and what a row of it says."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    inside: tuple[str, ...]
    """Keys of each turn, which data.columns may name otherwise as well."""
    convert: Callable[[Fields], Content]

    @property
    def names(self) -> frozenset[str]:
        """All that data.columns may map."""
        return frozenset((*self.required, *self.optional, *self.inside))


class Shaper:
    """Converts the rows of one source; all of them must have the shape of the first."""

    def __init__(self, source: SourceSpec, data: DataSpec) -> None:
        """Raises InvalidConfig for columns that the shape does not have, or a bad template."""
        self.shape = source.shape
        self._columns = source.columns
        self._template = RowTemplate.of(data) if source.shape is Shape.TEMPLATE else None
        if source.shape is not Shape.TEMPLATE:
            _check_columns(source)

    def convert(self, fields: Fields) -> Content:
        """What a row says. Raises BadLine where it is not of the shape or not usable."""
        renamed = self._renamed(fields)
        if self._template is not None:
            return self._template.convert(renamed)
        if self.shape is Shape.AUTO:
            self.shape = recognise(renamed)
        form = FORMS[self.shape]
        for name in form.required:
            if name not in renamed:
                raise self._missing(name, fields)
        return form.convert(renamed)

    def _renamed(self, fields: Fields) -> Fields:
        """The row under the shape's names, inside turns as well."""
        if not self._columns:
            return fields
        own = {name: fields[old] for name, old in self._columns.items() if old in fields}
        row = {**fields, **own}
        inside = {old: name for name, old in self._columns.items() if name in _INSIDE}
        if not inside:
            return row
        return {column: _renamed_turns(value, inside) for column, value in row.items()}

    def _missing(self, name: str, fields: Fields) -> BadLine:
        own = self._columns.get(name, name)
        message = f"no column {own!r}; the columns are: {joined(fields)}"
        try:
            other = recognise(fields)
        except BadLine:
            return BadLine(
                message,
                f"rename the column that plays the part of {name!r}, or say which one does: "
                f"data.columns={{{name}: ...}}",
            )
        return BadLine(
            f"{message}: a row of shape {other.value} among rows of shape {self.shape.value}",
            "put rows of different shapes into different files, and list them in data.mixture",
        )


def recognise(fields: Fields) -> Shape:
    """The shape that the columns are of. Raises BadLine where there is none."""
    for shape, form in FORMS.items():
        if all(name in fields for name in form.required):
            return shape
    shapes = "; ".join(f"{s.value}: {', '.join(form.required)}" for s, form in FORMS.items())
    raise BadLine(
        f"no known shape has the columns: {joined(fields)}",
        f"rename columns, or map them with data.columns, to those of a shape ({shapes}), or write "
        "data.shape=template with data.prompt_template and data.completion_template",
    )


def _messages(fields: Fields) -> Conversation:
    return conversation(fields["messages"], "messages", tools(fields.get("tools")))


def _sharegpt(fields: Fields) -> Conversation:
    turns = sharegpt.turns(fields["conversations"], fields.get("system"))
    return conversation(turns, "conversations", tools(fields.get("tools")))


def _alpaca(fields: Fields) -> Conversation:
    turns: list[Message] = []
    if fields.get("system"):
        turns.append(_says(Role.SYSTEM, fields["system"], "system"))
    for i, pair in enumerate(_pairs(fields.get("history") or [])):
        turns.append(_says(Role.USER, pair[0], f"history[{i}]"))
        turns.append(_says(Role.ASSISTANT, pair[1], f"history[{i}]"))
    asked = text_in(fields["instruction"], "column 'instruction'")
    if fields.get("input"):
        asked += "\n\n" + text_in(fields["input"], "column 'input'")
    turns.append(_says(Role.USER, asked, "instruction"))
    turns.append(_says(Role.ASSISTANT, fields["output"], "output"))
    return conversation(turns, "instruction")


def _pairs(history: object) -> list[tuple[object, object]]:
    pairs: list[tuple[object, object]] = []
    for pair in cast(list[object], history) if isinstance(history, list) else [history]:
        if not isinstance(pair, list | tuple) or len(cast(list[object], pair)) != 2:
            raise BadLine(
                f"column 'history' holds {kind(pair)}", "write a list of [question, answer]"
            )
        pairs.append(cast(tuple[object, object], tuple(cast(list[object], pair))))
    return pairs


def _prompt_completion(fields: Fields) -> Conversation:
    """Answers inside the prompt are not learnt: it is all prompt."""
    prompt, completion = fields["prompt"], fields["completion"]
    asked = prompt if isinstance(prompt, list) else [_says(Role.USER, prompt, "prompt")]
    given = (
        completion
        if isinstance(completion, list)
        else [_says(Role.ASSISTANT, completion, "completion")]
    )
    turns = [*cast(list[object], asked), *cast(list[object], given)]
    whole = conversation(turns, "prompt", tools(fields.get("tools")))
    start = len(cast(list[object], asked))
    if whole.messages[start:][:1] and whole.messages[start]["role"] != Role.ASSISTANT:
        raise BadLine(
            "the completion does not begin with the assistant", "put other turns into the prompt"
        )
    weights = (*(0.0 for _ in whole.weights[:start]), *whole.weights[start:])
    return Conversation(whole.messages, weights, whole.tools)


def _says(role: Role, text: object, column: str) -> Message:
    return Message(role=role.value, content=text_in(text, f"column {column!r}"))


def _renamed_turns(value: object, inside: Mapping[str, str]) -> object:
    if not isinstance(value, list):
        return value
    return [
        {inside.get(key, key): part for key, part in cast(dict[str, object], turn).items()}
        if isinstance(turn, dict)
        else turn
        for turn in cast(list[object], value)
    ]


FORMS: Final[Mapping[Shape, Form]] = {
    Shape.MESSAGES: Form(("messages",), ("tools",), ("role", "content"), _messages),
    Shape.SHAREGPT: Form(("conversations",), ("system", "tools"), ("from", "value"), _sharegpt),
    Shape.ALPACA: Form(("instruction", "output"), ("input", "system", "history"), (), _alpaca),
    Shape.PROMPT_COMPLETION: Form(("prompt", "completion"), ("tools",), (), _prompt_completion),
    Shape.TEXT: Form(
        ("text",), (), (), lambda fields: plain_text(fields["text"], "column 'text'")
    ),
}
"""In the order in which they are looked for: many rows have a column text beside another shape."""

_INSIDE: Final = frozenset(name for form in FORMS.values() for name in form.inside)


def _check_columns(source: SourceSpec) -> None:
    forms = FORMS.values() if source.shape is Shape.AUTO else (FORMS[source.shape],)
    known = frozenset().union(*(form.names for form in forms))
    if unknown := [name for name in source.columns if name not in known]:
        raise InvalidConfig(
            [
                Problem(
                    "data.columns",
                    f"{unknown[0]!r} is no column of shape {source.shape.value}",
                    "Write the shape's name on the left and the file's on the right; known are: "
                    + joined(sorted(known)),
                )
            ]
        )
