"""Rows of any columns to a conversation, by Jinja templates of the user's."""

from collections.abc import Mapping
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from raylora.config.data_spec import DataSpec
from raylora.errors import InvalidConfig, Problem
from raylora.jobs.data.conversation import Conversation, Message, Role, conversation, text_in
from raylora.jobs.data.records import BadLine
from raylora.jobs.data.tool_calls import tools

PROMPT, COMPLETION = "prompt_template", "completion_template"


class RowTemplate:
    """Two templates in a sandbox: neither reaches beyond the columns of its row."""

    def __init__(self, prompt: Template, completion: Template) -> None:
        self._prompt = prompt
        self._completion = completion

    @classmethod
    def of(cls, data: DataSpec) -> "RowTemplate":
        """Compile those of the spec, which has both. Raises InvalidConfig."""
        return cls(
            _compiled(PROMPT, data.prompt_template or ""),
            _compiled(COMPLETION, data.completion_template or ""),
        )

    def convert(self, fields: Mapping[str, Any]) -> Conversation:
        """The prompt template speaks for the user, the other answers. Raises BadLine."""
        turns = [
            Message(role=Role.USER.value, content=_rendered(PROMPT, self._prompt, fields)),
            Message(
                role=Role.ASSISTANT.value,
                content=_rendered(COMPLETION, self._completion, fields),
            ),
        ]
        return conversation(turns, "messages", tools(fields.get("tools")))


def _compiled(key: str, source: str) -> Template:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
    try:
        return environment.from_string(source)
    except TemplateSyntaxError as error:
        raise InvalidConfig(
            [
                Problem(
                    f"data.{key}",
                    f"is no Jinja template: {error}",
                    f"Mend its line {error.lineno}",
                )
            ]
        ) from error


def _rendered(key: str, template: Template, fields: Mapping[str, Any]) -> str:
    try:
        text = template.render(fields)
    except Exception as error:  # the user's template can raise anything
        raise BadLine(
            f"data.{key} fails: {error}", "mend the template, or the columns of this row"
        ) from error
    return text_in(text, f"what data.{key} gives")
