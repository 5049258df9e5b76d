"""The one generator: evaluation, batch inference and serving all use this engine."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch

from raylora.engine.cache_budget import CacheBudget
from raylora.engine.choosing import choose
from raylora.engine.grammar import Grammars
from raylora.engine.joining import Group, Joining
from raylora.engine.prefix_cache import NoPrefixCache, PrefixCache
from raylora.engine.request import Completion, Event, FinishReason, Request, check_length
from raylora.engine.row import Row
from raylora.engine.runner import Adapters, Runner
from raylora.engine.scheduler import GROUP_TOKENS, PREFILL_TOKENS, Scheduler
from raylora.engine.stats import EngineStats
from raylora.engine.vocabulary import end_tokens
from raylora.errors import RayloraError

log = logging.getLogger(__name__)


class Engine:
    """Continuous batching: rows of any mix of adapters join and leave between steps.

    Used from one thread; `stats` may be read from any.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        bank: Adapters,
        *,
        max_batch_size: int,
        max_length: int | None = None,
        cache_bytes: int | None = None,
        prefill_tokens: int = PREFILL_TOKENS,
        reuse_prefixes: bool = True,
    ) -> None:
        """max_length is the context in tokens, prompt and answer together; None takes the model's.

        cache_bytes bounds keys and values, and so the context where one row would need more: rows
        wait for room, and what they leave is for prefixes of earlier requests. Without it rows are
        not bounded and no prefix is kept. prefill_tokens: of prompts in one step, while others
        generate.
        """
        self._tokenizer = tokenizer
        self._runner = Runner(model, bank)
        self._budget = CacheBudget(cache_bytes, self._runner.token_bytes)
        context = int(model.config.max_position_embeddings)
        wanted = min(max_length or context, context)
        self.max_length = self._budget.longest(wanted)
        if not self.max_length:
            raise RayloraError(
                f"{cache_bytes} bytes of keys and values do not hold one request",
                hint=f"give them at least {self._budget.least} bytes (batching.cache_mb)",
            )
        if self.max_length < wanted:
            log.warning("the context is %s tokens: cache_bytes holds no more", self.max_length)
        self._scheduler = Scheduler[Row](max_batch_size, self._budget)
        reuses = reuse_prefixes and cache_bytes is not None
        self._prefixes = PrefixCache(self._runner.token_bytes) if reuses else NoPrefixCache()
        self._prefill_tokens = prefill_tokens
        self._end_tokens = end_tokens(model, tokenizer)
        self._grammars = Grammars(tokenizer, sorted(self._end_tokens))
        self._joining = Joining(self._runner, bank, self._prefixes)
        self._rows: list[Row] = []
        """Running rows, by their index in the runner's batch."""
        self._joined = False
        """Whether the last step ended with first tokens: the next one is for all rows."""
        self._cancelled: set[str] = set()
        self._counted = Counter[str]()

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._rows or self._joining.rows or self._scheduler.waiting)

    @property
    def running(self) -> int:
        """Rows in the batch."""
        return len(self._rows)

    @property
    def waiting(self) -> int:
        """Rows that have not joined yet."""
        return self._scheduler.waiting + len(self._joining.rows)

    @property
    def stats(self) -> EngineStats:
        """A snapshot for metrics."""
        prefixes = self._prefixes.bytes
        return EngineStats(
            waiting=self._scheduler.waiting,
            prefilling=len(self._joining.rows),
            running=len(self._rows),
            steps=self._counted["steps"],
            prefilled_tokens=self._counted["prefilled"],
            reused_tokens=self._counted["reused"],
            prefix_hits=self._counted["hits"],
            decoded_tokens=self._counted["decoded"],
            kv_bytes=self._held_by_rows + prefixes,
            prefix_bytes=prefixes,
            kv_budget=self._budget.bytes,
        )

    def prepare_grammars(self) -> None:
        """Take the time for what answers of a JSON schema need, before the first one comes.

        Without it that one takes it, and all that generate wait.
        """
        self._grammars.prepare()

    def add(self, request: Request) -> None:
        """Queue a request; it joins at a coming step. Raises InvalidRequest if it cannot fit."""
        check_length(len(request.prompt_ids), self.max_length)
        constraint = self._grammars.constraint(request.sampling.grammar)
        self._scheduler.add(Row(request, self._tokenizer, self.max_length, constraint))

    def cancel(self, request_id: str) -> None:
        """Drop a request at the next step; unknown or finished ones are ignored."""
        self._cancelled.add(request_id)

    def step(self) -> list[Event]:
        """Let rows leave and join, generate a token for each, and return what they have to say.

        Where a prompt was completed its first token is said before the others' next are generated.
        """
        self._counted["steps"] += 1
        events = self._drop_cancelled()
        joined, self._joined = self._joined, False
        if not joined:
            events += self._take_in()
            events += self._prefill()
        if self._rows and not self._joined:
            events += self._decode()
        return events

    def _drop_cancelled(self) -> list[Event]:
        cancelled, self._cancelled = self._cancelled, set()
        waiting = [self._scheduler.remove(row_id) for row_id in cancelled]
        inside = [row for row in self._inside() if row.id in cancelled]
        dropped = [row for row in waiting if row is not None] + inside
        events = [row.finish(FinishReason.CANCELLED) for row in dropped]
        self._sweep()
        return events

    def _inside(self) -> list[Row]:
        """Rows that have, or are getting, keys and values."""
        return [*self._rows, *self._joining.rows]

    def _take_in(self) -> list[Event]:
        """Begin the prompts of the rows that are next."""
        admitted = self._scheduler.admit(self._inside())
        if not admitted:
            return []
        failed = self._joining.begin(admitted)
        self._prefixes.shrink(self._room_for_prefixes())
        return failed

    def _prefill(self) -> list[Event]:
        """Go on with the prompts, up to the tokens of one step."""
        progress = self._joining.advance(self._prefill_tokens if self._rows else GROUP_TOKENS)
        events = progress.failed
        for group, logits in progress.done:
            events += self._join(group, logits)
        self._prefixes.shrink(self._room_for_prefixes())
        return events

    def _join(self, group: Group, logits: torch.Tensor) -> list[Event]:
        """Let the rows of a group that is done generate with the others."""
        for i, row in enumerate(group.rows):
            reused = group.prefill.reused[i]
            self._counted["reused"] += reused
            self._counted["hits"] += reused > 0
            self._counted["prefilled"] += row.prompt_length - reused
        self._joined = True
        events = self._extend(group.rows, logits)
        for i, row in enumerate(group.rows):
            if row.finish_reason is not FinishReason.ERROR:
                self._keep(row, row.request.prompt_ids, partial(group.prefill.read, i))
        staying = [i for i, row in enumerate(group.rows) if row.finish_reason is None]
        if staying:
            self._rows += [group.rows[i] for i in staying]
            longest = max(row.most_tokens for row in self._rows)
            self._runner.join(group.prefill, staying, longest)
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
        decoded, events = choose(rows, logits, self._end_tokens)
        self._counted["decoded"] += decoded
        return events

    def _sweep(self) -> None:
        """Take finished rows out of the batch; the last row fills the gap, as in the runner."""
        for i in range(len(self._rows) - 1, -1, -1):
            row = self._rows[i]
            if row.finish_reason is None:
                continue
            if row.finish_reason.is_answer:
                tokens = [*row.request.prompt_ids, *row.tokens[:-1]]
                self._keep(row, tokens, partial(self._runner.read, i))
            self._runner.leave(i)
            self._rows[i] = self._rows[-1]
            self._rows.pop()

    def _keep(self, row: Row, tokens: Sequence[int], read: Callable[[], torch.Tensor]) -> None:
        """Keep keys and values for requests that begin with the same tokens."""
        self._prefixes.keep(row.owner, tokens, read, self._room_for_prefixes())

    def _room_for_prefixes(self) -> int:
        rows = [row.most_tokens for row in self._inside()]
        return self._budget.left(rows, self._held_by_rows)

    @property
    def _held_by_rows(self) -> int:
        """Bytes of their buffers, which stay as large after a row has left them."""
        return self._runner.bytes + self._joining.bytes


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
