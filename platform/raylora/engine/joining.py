"""Rows whose prompts are on their way into the cache: group by group in turn, piece by piece."""

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from raylora.engine.prefill import Prefill
from raylora.engine.prefix_cache import Prefixes
from raylora.engine.request import Event, FinishReason
from raylora.engine.row import Row
from raylora.engine.runner import Adapters, Runner
from raylora.engine.scheduler import grouped

log = logging.getLogger(__name__)


@dataclass
class Group:
    """Rows that are prefilled together."""

    rows: Sequence[Row]
    prefill: Prefill


@dataclass
class Progress:
    """What came of some prefilling."""

    done: list[tuple[Group, torch.Tensor]]
    """Groups whose prompts are in, with the logits of each row's first token."""
    failed: list[Event]


class Joining:
    """Between the queue and the running batch."""

    def __init__(self, runner: Runner, adapters: Adapters, prefixes: Prefixes) -> None:
        self._runner = runner
        self._adapters = adapters
        self._prefixes = prefixes
        self._groups: deque[Group] = deque()

    @property
    def rows(self) -> list[Row]:
        """All that have not ended."""
        rows = [row for group in list(self._groups) for row in group.rows]
        return [row for row in rows if row.finish_reason is None]

    @property
    def bytes(self) -> int:
        """Keys and values so far."""
        return sum(group.prefill.bytes for group in list(self._groups))

    def begin(self, rows: Sequence[Row]) -> list[Event]:
        """Take rows in, those with about as much to compute together; the end of who cannot be."""
        failed: list[Event] = []
        for row in rows:
            row.begun = time.monotonic()
            try:
                row.owner = row.adapter and (row.adapter, self._adapters.stamp(row.adapter))
            except Exception as error:
                failed.append(row.finish(FinishReason.ERROR, error=str(error)))
                continue
            row.known = self._prefixes.known(row.owner, row.request.prompt_ids)
        for group in grouped([row for row in rows if row.finish_reason is None]):
            self._groups.append(self._begin(group))
        return failed

    def advance(self, tokens: int) -> Progress:
        """Compute about so many tokens, padding included."""
        progress = Progress([], [])
        while self._groups and tokens > 0:
            group = self._groups.popleft()
            if all(row.finish_reason is not None for row in group.rows):
                continue
            before = group.prefill.left
            try:
                logits = self._runner.prefill(group.prefill, tokens)
            except Exception as error:
                progress.failed += self._separate(group, error)
                continue
            tokens -= (before - group.prefill.left) * len(group.rows)
            if logits is None:
                self._groups.append(group)
            else:
                progress.done.append((group, logits))
        return progress

    def _begin(self, rows: Sequence[Row]) -> Group:
        prompts = [row.request.prompt_ids for row in rows]
        known = [row.known for row in rows]
        prefill = self._runner.begin(prompts, [row.adapter for row in rows], known)
        for row in rows:
            row.known = None
        return Group(rows, prefill)

    def _separate(self, group: Group, error: Exception) -> list[Event]:
        """After a failure the prompts of a group are tried again one by one."""
        rows = [row for row in group.rows if row.finish_reason is None]
        if len(rows) > 1:
            self._groups.extendleft(self._begin([row]) for row in reversed(rows))
            return []
        log.exception("prefill of request %s failed", rows[0].id)
        return [rows[0].finish(FinishReason.ERROR, error=str(error))]
