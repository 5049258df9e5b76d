"""`python -m raylora.jobs.batch.run spec.yaml`: ask every row of a file of every adapter.

Runs as a Ray Job, through Ray Data. Actors answer, each with a base of its own; a lost one is
started again and asked again. Answers are on the disk as soon as they come, so a batch that was
killed goes on.
"""

import sys
import time
from pathlib import Path
from typing import Any

from raylora.cluster.events import BatchEvent, StageEvent, emit
from raylora.config.batch_spec import BatchSpec
from raylora.config.compose import read_resolved
from raylora.config.data_spec import SourceSpec
from raylora.errors import RayloraError
from raylora.jobs.batch.answerer import Replies
from raylora.jobs.batch.book import Book
from raylora.jobs.data.sources import fingerprint
from raylora.jobs.driver import Given, connect, drive
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.location import tracking_uri

TELL_S = 5.0
"""Between two words about progress."""
LISTED = 20
"""Refused rows that are named at the end; all of them are in the file."""


def run(given: Given) -> None:
    """Answer what has no answer yet. Raises RayloraError where something was left unanswered."""
    spec = read_resolved(given.spec, BatchSpec)
    emit(StageEvent("start", spec.input))
    with Book(Path(spec.output), plan(spec)) as book:
        for reference, version in book.versions.items():
            emit(StageEvent("register", f"{reference} is {version}"))
        before = len(book.done)
        if before:
            emit(StageEvent("batch", f"{before} lines are in {spec.output} already"))
        batch = _Batch(spec, book)
        batch.run()
        emit(batch.event(resumed=before))
    if batch.failures:
        raise RayloraError(
            f"{len(batch.failures)} answers failed, the first: {batch.failures[0]}",
            hint="the same command again asks only what has no line yet",
        )


def plan(spec: BatchSpec) -> dict[str, Any]:
    """What must not change while a file is being written, and the versions that are meant now."""
    registry = Registry(tracking_uri(spec.serving.tracking, spec.serving.outputs))
    versions = {reference: str(registry.resolve(reference)) for reference in spec.adapters}
    if spec.base or not versions:
        versions[spec.serving.model.name] = spec.serving.model.name
    return {
        "input": fingerprint(SourceSpec(source=spec.input), Path.cwd()),
        "versions": versions,
        "model": spec.serving.model.model_dump(mode="json"),
        "system_prompt": spec.system_prompt,
        "max_tokens": spec.max_tokens or spec.serving.batching.default_max_tokens,
        "temperature": spec.temperature,
        "seed": spec.seed,
    }


class _Batch:
    """One run: what is asked, and what has come of it."""

    def __init__(self, spec: BatchSpec, book: Book) -> None:
        self._spec = spec
        self._book = book
        self._versions = list(dict.fromkeys(book.versions.values()))
        self.refusals: list[str] = []
        self.failures: list[str] = []
        self._answers = 0
        self._tokens = 0
        self._started = time.monotonic()
        self._told = self._started

    def run(self) -> None:
        """Ask what has no line yet, and write what comes."""
        # Ray reads its switch for folded logs, which `drive` sets, where it is imported.
        from raylora.jobs.batch.stream import replies

        connect()
        for found in replies(self._spec, self._versions, self._book.done):
            self._take(found)

    def event(self, resumed: int) -> BatchEvent:
        """What has come of it."""
        return BatchEvent(
            output=self._spec.output,
            answers=self._answers,
            refused=self._book.refused,
            resumed=resumed,
            failed=len(self.failures),
            tokens=self._tokens,
            seconds=time.monotonic() - self._started,
            refusals=self.refusals[:LISTED],
        )

    def _take(self, replies: Replies) -> None:
        self._book.write(replies.lines)
        self.refusals += [
            f"row {line['row']}, {line['adapter']}: {line['error']}"
            for line in replies.lines
            if "error" in line
        ]
        self._answers += sum("answer" in line for line in replies.lines)
        self._tokens += replies.tokens
        self.failures += replies.failures
        if time.monotonic() - self._told > TELL_S:
            self._told = time.monotonic()
            speed = self._tokens / (self._told - self._started)
            emit(StageEvent("batch", f"{self._answers} answers, {speed:.0f} tokens/s"))


if __name__ == "__main__":
    sys.exit(drive("raylora.jobs.batch.run", run))
