"""Turns of a conversation, as OpenAI's clients write them and as chat templates read them."""

import json
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator


class TextPart(BaseModel):
    """A part of a message's content; text is the only kind there is."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    refusal: None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    function_call: None = None
    audio: None = None
    annotations: list[Any] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and not self.tool_calls:
            raise ValueError("content is missing; only a message with tool_calls has none")
        return self

    def rendered(self) -> dict[str, Any]:
        """The message as chat templates know it: parts joined, developer as system."""
        content = self.content or ""
        if not isinstance(content, str):
            content = "".join(part.text for part in content)
        role = "system" if self.role == "developer" else self.role
        calls = self.tool_calls and [_with_arguments(call) for call in self.tool_calls]
        own = {"tool_calls": calls, "tool_call_id": self.tool_call_id}
        given = {key: value for key, value in own.items() if value is not None}
        return {"role": role, "content": content, **given}


def _with_arguments(call: dict[str, Any]) -> dict[str, Any]:
    """A tool call with its arguments as an object: templates write them as JSON themselves."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return call
    return {**call, "function": {**function, "arguments": arguments}}
