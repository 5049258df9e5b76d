"""Events of the engine as OpenAI's responses: whole, or streamed as server-sent events."""

import json
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from raylora.engine.request import Completion, Event
from raylora.serve.api_errors import ApiError
from raylora.serve.protocol import Usage

Events = AsyncGenerator[tuple[int, Event], None]

DONE = "data: [DONE]\n\n"


class Kind(Enum):
    """Chat and plain completions differ in names and in where the text is."""

    CHAT = "chatcmpl"
    COMPLETION = "cmpl"

    def object(self, streamed: bool) -> str:
        """The `object` field."""
        if self is Kind.COMPLETION:
            return "text_completion"
        return "chat.completion.chunk" if streamed else "chat.completion"

    def choice(self, index: int, text: str, reason: str) -> dict[str, Any]:
        """One finished answer."""
        content: dict[str, Any] = {"text": text}
        if self is Kind.CHAT:
            content = {"message": {"role": "assistant", "content": text, "refusal": None}}
        return {"index": index, **content, "logprobs": None, "finish_reason": reason}

    def piece(self, index: int, text: str, reason: str | None, first: bool) -> dict[str, Any]:
        """One piece of an answer."""
        content: dict[str, Any] = {"text": text}
        if self is Kind.CHAT:
            delta = {"role": "assistant"} if first else {}
            content = {"delta": {**delta, "content": text} if text or first else delta}
        return {"index": index, **content, "logprobs": None, "finish_reason": reason}


@dataclass
class Answer:
    """What every response to one request has in common."""

    kind: Kind
    model: str
    """The version that answers, or the base."""
    fingerprint: str
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = f"{self.kind.value}-{uuid.uuid4().hex}"

    async def whole(self, events: Events) -> dict[str, Any]:
        """Wait for all answers; one response."""
        finished: dict[int, Completion] = {}
        async with aclosing(events):
            async for index, event in events:
                if event.completion is not None:
                    finished[index] = event.completion
        choices = [
            self.kind.choice(index, completion.text, completion.finish_reason.value)
            for index, completion in sorted(finished.items())
        ]
        return {
            **self._head(streamed=False),
            "choices": choices,
            "usage": _usage(list(finished.values())),
        }

    async def streamed(self, events: Events, with_usage: bool) -> AsyncGenerator[str, None]:
        """Server-sent events as the text comes; an error after the beginning is the last one."""
        head = self._head(streamed=True) | ({"usage": None} if with_usage else {})
        finished: list[Completion] = []
        begun: set[int] = set()
        async with aclosing(events):
            try:
                async for index, event in events:
                    for choice in self._pieces(index, event, index not in begun):
                        yield _sse({**head, "choices": [choice]})
                    begun.add(index)
                    if event.completion is not None:
                        finished.append(event.completion)
            except ApiError as error:
                yield _sse(error.content())
                return
        if with_usage:
            yield _sse({**head, "choices": [], "usage": _usage(finished)})
        yield DONE

    def _pieces(self, index: int, event: Event, first: bool) -> list[dict[str, Any]]:
        """The text of an event, then, on the last one, a piece that says why it ended."""
        pieces = []
        if event.text or first:
            pieces.append(self.kind.piece(index, event.text, None, first))
        if event.completion is not None:
            reason = event.completion.finish_reason.value
            pieces.append(self.kind.piece(index, "", reason, first=False))
        return pieces

    def _head(self, streamed: bool) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": self.kind.object(streamed),
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def _usage(completions: Sequence[Completion]) -> dict[str, int]:
    return Usage.of(
        sum(completion.prompt_tokens for completion in completions),
        sum(len(completion.token_ids) for completion in completions),
    ).model_dump()


def _sse(data: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"
