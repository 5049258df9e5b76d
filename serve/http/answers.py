"""Events of the engine as OpenAI's responses: whole, or streamed as server-sent events."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

from raylora.engine.logprobs import TokenLogprob
from raylora.engine.request import Completion, Event
from raylora.engine.vocabulary import Vocabulary
from raylora.serve.edge.request_record import RequestRecord
from raylora.serve.http.api_errors import ApiError
from raylora.serve.http.logprobs import of_chat, of_completion
from raylora.serve.http.sse import DONE, sse
from raylora.serve.ids import new_id

Events = AsyncGenerator[tuple[int, Event], None]
Logprobs: TypeAlias = dict[str, Any] | None


class Kind(Enum):
    """Chat and plain completions differ in names and in where the text is."""

    CHAT = "chatcmpl"
    COMPLETION = "cmpl"

    def object(self, streamed: bool) -> str:
        """The `object` field."""
        if self is Kind.COMPLETION:
            return "text_completion"
        return "chat.completion.chunk" if streamed else "chat.completion"

    def choice(self, index: int, text: str, reason: str, logprobs: Logprobs) -> dict[str, Any]:
        """One finished answer."""
        content: dict[str, Any] = {"text": text}
        if self is Kind.CHAT:
            content = {"message": {"role": "assistant", "content": text, "refusal": None}}
        return {"index": index, **content, "logprobs": logprobs, "finish_reason": reason}

    def piece(self, index: int, text: str, logprobs: Logprobs, first: bool) -> dict[str, Any]:
        """One piece of an answer."""
        content: dict[str, Any] = {"text": text}
        if self is Kind.CHAT:
            delta = {"role": "assistant"} if first else {}
            content = {"delta": {**delta, "content": text}}
        return {"index": index, **content, "logprobs": logprobs, "finish_reason": None}

    def end(self, index: int, reason: str) -> dict[str, Any]:
        """The last piece, which says why the answer ended."""
        content: dict[str, Any] = {"delta": {}} if self is Kind.CHAT else {"text": ""}
        return {"index": index, **content, "logprobs": None, "finish_reason": reason}

    def logprobs(
        self, found: Sequence[TokenLogprob], vocabulary: Vocabulary, offset: int = 0
    ) -> Logprobs:
        """Of tokens whose text begins `offset` characters into the answer; null without any."""
        if not found:
            return None
        if self is Kind.CHAT:
            return of_chat(found, vocabulary)
        return of_completion(found, vocabulary, offset)


@dataclass
class Answer:
    """What every response to one request has in common."""

    kind: Kind
    model: str
    """The version that answers, or the base."""
    fingerprint: str
    vocabulary: Vocabulary
    record: RequestRecord
    """Of the request: its tokens and times."""
    expected: int = 1
    """Answers to all prompts together."""
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = f"{self.kind.value}-{new_id()}"

    async def whole(self, events: Events) -> dict[str, Any]:
        """Wait for all answers; one response."""
        finished: dict[int, Completion] = {}
        async with aclosing(events):
            async for index, event in events:
                if event.completion is not None:
                    finished[index] = event.completion
        choices = [
            self.kind.choice(
                index, done.text, done.finish_reason.value, self._logprobs(done.logprobs)
            )
            for index, done in sorted(finished.items())
        ]
        return {
            **self._head(streamed=False),
            "choices": choices,
            "usage": self._usage(),
            "timings": self.record.timings,
        }

    async def streamed(self, events: Events, with_usage: bool) -> AsyncGenerator[bytes, None]:
        """Server-sent events as the text comes; an error after the beginning is the last one.

        The last one but [DONE] has the timings.
        """
        head = self._head(streamed=True) | ({"usage": None} if with_usage else {})
        left = self.expected
        begun: dict[int, int] = {}
        """By index: characters of the tokens whose logprobs were told."""
        async with aclosing(events):
            try:
                async for index, event in events:
                    left -= event.completion is not None
                    for choice in self._pieces(index, event, begun.get(index)):
                        is_last = not left and choice["finish_reason"] and not with_usage
                        end = {"timings": self.record.timings} if is_last else {}
                        yield sse({**head, "choices": [choice], **end})
                    begun[index] = begun.get(index, 0) + self._characters(event.logprobs)
            except ApiError as error:
                yield sse(error.content())
                return
        if with_usage:
            end = {"usage": self._usage(), "timings": self.record.timings}
            yield sse({**head, "choices": [], **end})
        yield DONE

    def _pieces(self, index: int, event: Event, offset: int | None) -> list[dict[str, Any]]:
        """The text of an event, then, on the last one, a piece that says why it ended.

        offset: None for the first event of an answer.
        """
        pieces: list[dict[str, Any]] = []
        if event.text or event.logprobs or offset is None:
            found = self._logprobs(event.logprobs, offset or 0)
            pieces.append(self.kind.piece(index, event.text, found, offset is None))
        if event.completion is not None:
            pieces.append(self.kind.end(index, event.completion.finish_reason.value))
        return pieces

    def _logprobs(self, found: Sequence[TokenLogprob], offset: int = 0) -> Logprobs:
        return self.kind.logprobs(found, self.vocabulary, offset)

    def _characters(self, found: Sequence[TokenLogprob]) -> int:
        return sum(len(self.vocabulary.read(each.token)[0]) for each in found)

    def _usage(self) -> dict[str, int]:
        asked, generated = self.record.prompt_tokens, self.record.completion_tokens
        return {
            "prompt_tokens": asked,
            "completion_tokens": generated,
            "total_tokens": asked + generated,
        }

    def _head(self, streamed: bool) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": self.kind.object(streamed),
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }
