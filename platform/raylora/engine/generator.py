"""The one generator: evaluation, batch inference and serving all use this engine."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from raylora.engine.grammar import Grammars
from raylora.engine.logprobs import token_logprob
from raylora.engine.request import Completion, Event, FinishReason, Request
from raylora.engine.row import Row
from raylora.engine.runner import Adapters, Runner
from raylora.engine.scheduler import Scheduler
from raylora.errors import InvalidRequest

log = logging.getLogger(__name__)


class Engine:
    """Continuous batching: rows of any mix of adapters join and leave between steps.

    Used from one thread. max_length is the context in tokens, prompt and answer together; None
    takes the model's own.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        bank: Adapters,
        *,
        max_batch_size: int,
        max_length: int | None = None,
    ) -> None:
        context = int(model.config.max_position_embeddings)
        self.max_length = min(max_length or context, context)
        self._tokenizer = tokenizer
        self._runner = Runner(model, bank)
        self._scheduler = Scheduler[Row](max_batch_size)
        self._end_tokens = end_tokens(model, tokenizer)
        self._grammars = Grammars(tokenizer, sorted(self._end_tokens))
        self._rows: list[Row] = []
        """Running rows, by their index in the runner's batch."""
        self._cancelled: set[str] = set()

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._rows or self._scheduler.waiting)

    @property
    def running(self) -> int:
        """Rows in the batch."""
        return len(self._rows)

    @property
    def waiting(self) -> int:
        """Rows that have not joined yet."""
        return self._scheduler.waiting

    def add(self, request: Request) -> None:
        """Queue a request; it joins at a coming step. Raises InvalidRequest if it cannot fit."""
        check_length(len(request.prompt_ids), self.max_length)
        constraint = self._grammars.constraint(request.sampling.grammar)
        self._scheduler.add(Row(request, self._tokenizer, self.max_length, constraint))

    def cancel(self, request_id: str) -> None:
        """Drop a request at the next step; unknown or finished ones are ignored."""
        self._cancelled.add(request_id)

    def step(self) -> list[Event]:
        """Let rows leave and join, generate a token for each, and return what they have to say."""
        events = self._drop_cancelled()
        for group in self._scheduler.admit(len(self._rows)):
            events += self._prefill(group)
        if self._rows:
            events += self._decode()
        return events

    def _drop_cancelled(self) -> list[Event]:
        cancelled, self._cancelled = self._cancelled, set()
        waiting = [self._scheduler.remove(row_id) for row_id in cancelled]
        running = [row for row in self._rows if row.id in cancelled]
        dropped = [row for row in waiting if row is not None] + running
        events = [row.finish(FinishReason.CANCELLED) for row in dropped]
        self._sweep()
        return events

    def _prefill(self, group: Sequence[Row]) -> list[Event]:
        keys = [row.request.adapter for row in group]
        try:
            logits, cache = self._runner.prefill([row.request.prompt_ids for row in group], keys)
        except Exception as error:
            if len(group) > 1:
                return [event for row in group for event in self._prefill([row])]
            log.exception("prefill of request %s failed", group[0].id)
            return [group[0].finish(FinishReason.ERROR, error=str(error))]
        events = self._extend(group, logits)
        staying = [i for i, row in enumerate(group) if row.finish_reason is None]
        if staying:
            self._runner.join(cache, [row.prompt_length for row in group], keys, staying)
            self._rows += [group[i] for i in staying]
        return events

    def _decode(self) -> list[Event]:
        try:
            logits = self._runner.decode([row.tokens[-1] for row in self._rows])
        except Exception as error:
            log.exception("a step of %d rows failed", len(self._rows))
            failed, self._rows = self._rows, []
            self._runner.clear()
            return [row.finish(FinishReason.ERROR, error=str(error)) for row in failed]
        events = self._extend(self._rows, logits)
        self._sweep()
        return events

    def _extend(self, rows: Sequence[Row], logits: torch.Tensor) -> list[Event]:
        """Choose each row's next token: greedy rows all at once, the others one by one."""
        best = logits.argmax(dim=-1)
        finite = logits.gather(1, best[:, None])[:, 0].isfinite().tolist()
        events: list[Event] = []
        for i, (row, token) in enumerate(zip(rows, best.tolist(), strict=True)):
            if not finite[i]:
                events.append(row.finish(FinishReason.ERROR, error="logits are not finite"))
                continue
            try:
                chosen = token if row.sampler.takes_best else row.sampler.choose(logits[i])
            except ValueError as error:
                events.append(row.finish(FinishReason.ERROR, error=str(error)))
                continue
            top = row.request.sampling.logprobs
            found = None if top is None else token_logprob(logits[i], chosen, top)
            events += row.accept(chosen, self._end_tokens, found)
        return events

    def _sweep(self) -> None:
        """Take finished rows out of the batch; the last row fills the gap, as in the runner."""
        for i in range(len(self._rows) - 1, -1, -1):
            if self._rows[i].finish_reason is not None:
                self._runner.leave(i)
                self._rows[i] = self._rows[-1]
                self._rows.pop()


def generate(engine: Engine, requests: Iterable[Request]) -> list[Completion]:
    """Run requests to their end on an engine of one's own; completions in the given order."""
    order: list[str] = []
    for request in requests:
        engine.add(request)
        order.append(request.id)
    finished: dict[str, Completion] = {}
    while engine.has_work:
        for event in engine.step():
            if event.completion is not None:
                finished[event.id] = event.completion
    return [finished[request_id] for request_id in order]


def check_length(prompt_tokens: int, max_length: int) -> None:
    """Raise InvalidRequest for a prompt that is empty or leaves no room for an answer."""
    if prompt_tokens == 0:
        raise InvalidRequest("the prompt is empty; write at least one token")
    if prompt_tokens >= max_length:
        raise InvalidRequest(
            f"the prompt has {prompt_tokens} tokens and the context length is {max_length}, "
            f"prompt and answer together; shorten the prompt to at most {max_length - 1} tokens"
        )


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Ids that end an answer: the model's generation config's and the tokenizer's."""
    configured: int | list[int] | None = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [*ids, tokenizer.eos_token_id] if i is not None)
