"""One request while it is in the engine."""

from collections.abc import Container, Hashable

import torch

from raylora.engine.grammar import Constraint
from raylora.engine.logprobs import TokenLogprob
from raylora.engine.request import Completion, Event, FinishReason, Request
from raylora.engine.sampler import Sampler
from raylora.engine.text import Decoder, TextStream


class Row:
    """The request, the tokens it has so far and what of their text has been passed on."""

    def __init__(
        self,
        request: Request,
        decoder: Decoder,
        max_length: int,
        constraint: Constraint | None = None,
    ) -> None:
        self.request = request
        self.sampler = Sampler(request.sampling, request.prompt_ids, constraint)
        self.tokens: list[int] = []
        self._text = TextStream(decoder, request.sampling.stop)
        self._pieces: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._told = 0
        """Of these, how many events have had."""
        self._limit = min(request.sampling.max_new_tokens, max_length - self.prompt_length)
        self.finish_reason: FinishReason | None = None
        self.owner: Hashable = None
        """Whose prefixes it may use: the adapter's version."""
        self.known: torch.Tensor | None = None
        """Keys and values of the prompt's beginning, until the prefill has them."""
        self.begun: float | None = None
        """When the engine took the prompt in, by time.monotonic."""

    @property
    def id(self) -> str:
        """The request's id."""
        return self.request.id

    @property
    def adapter(self) -> str | None:
        """Key in the bank; None for the base."""
        return self.request.adapter

    @property
    def prompt_length(self) -> int:
        """Tokens of the prompt."""
        return len(self.request.prompt_ids)

    @property
    def to_prefill(self) -> int:
        """Tokens of the prompt to compute."""
        return self.prompt_length - (0 if self.known is None else self.known.shape[3])

    @property
    def most_tokens(self) -> int:
        """Prompt and answer, if it goes on to its limit."""
        return self.prompt_length + self._limit

    def accept(
        self, token: int, end_tokens: Container[int], logprob: TokenLogprob | None = None
    ) -> list[Event]:
        """Append a generated token; finish where it, or the text it completes, ends the answer."""
        self.tokens.append(token)
        if token in end_tokens:
            return [self.finish(FinishReason.STOP)]
        if logprob is not None:
            self._logprobs.append(logprob)
        piece = self._text.push(token)
        if self._text.stopped:
            return [self.finish(FinishReason.STOP, piece)]
        if len(self.tokens) >= self._limit:
            return [self.finish(FinishReason.LENGTH, piece)]
        self._pieces.append(piece)
        return [Event(self.id, piece, logprobs=self._news())] if piece else []

    def finish(self, reason: FinishReason, piece: str = "", *, error: str = "") -> Event:
        """End the row with the text that is still due."""
        if reason.is_answer:
            piece += self._text.finish()
            reason = FinishReason.STOP if self._text.stopped else reason
        self._pieces.append(piece)
        self.finish_reason = reason
        completion = Completion(
            id=self.id,
            text="".join(self._pieces),
            token_ids=tuple(self.tokens),
            finish_reason=reason,
            prompt_tokens=self.prompt_length,
            error=error,
            logprobs=tuple(self._logprobs),
            begun=self.begun,
        )
        return Event(self.id, piece, completion, self._news())

    def _news(self) -> tuple[TokenLogprob, ...]:
        told, self._told = self._told, len(self._logprobs)
        return tuple(self._logprobs[told:])
