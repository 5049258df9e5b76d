"""`python -m raylora.jobs.batch.run spec.yaml`: ask every row of a file of every adapter.

Runs as a Ray Job. Actors answer, each with a base of its own; a lost one is started again and
asked again. Answers are on the disk as soon as they come, so a batch that was killed goes on.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from raylora.cluster.events import BatchEvent, StageEvent, emit
from raylora.config.batch_spec import BatchSpec
from raylora.config.compose import read_resolved
from raylora.config.data_spec import SourceSpec
from raylora.errors import RayloraError
from raylora.jobs.batch.answerer import Answerer, Asked, Replies
from raylora.jobs.batch.book import Book
from raylora.jobs.batch.questions import Unasked, questions
from raylora.jobs.data.sources import fingerprint
from raylora.jobs.driver import Given, connect, drive
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.location import tracking_uri

BATCHES_AT_ONCE = 4
"""Full batches of the engine in one call of an actor: rows leave and join within it."""
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
        """Keep every actor busy with one call while another waits for it."""
        import ray

        connect()
        serving = self._spec.serving
        base = serving.model.name
        adapters = [version for version in self._versions if version != base]
        actor: Any = ray.remote(
            num_cpus=serving.cpus_per_replica,
            num_gpus=serving.gpus_per_replica,
            max_restarts=3,
            max_task_retries=3,
        )(Answerer)
        actors = [actor.remote(self._spec, adapters) for _ in range(serving.num_replicas)]
        size = BATCHES_AT_ONCE * serving.batching.max_batch_size
        chunks = _chunks(self._open_questions(), size)
        running: dict[Any, Any] = {}
        for chunk, each in zip(islice(chunks, 2 * len(actors)), 2 * actors, strict=False):
            running[each.answer.remote(chunk)] = each
        while running:
            (ready,), _ = ray.wait(list(running), num_returns=1)
            each = running.pop(ready)
            self._take(ray.get(ready))
            for chunk in islice(chunks, 1):
                running[each.answer.remote(chunk)] = each

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

    def _open_questions(self) -> Iterator[Asked]:
        """What has no line yet; rows that ask nothing get theirs here."""
        for found in questions(self._spec.input, Path.cwd()):
            missing = [v for v in self._versions if (found.row, v) not in self._book.done]
            if not isinstance(found, Unasked):
                yield from (Asked(found, version) for version in missing)
                continue
            named = {} if found.id is None else {"id": found.id}
            self._write(
                [
                    {"row": found.row, **named, "adapter": version, "error": found.reason}
                    for version in missing
                ]
            )

    def _take(self, replies: Replies | RayloraError) -> None:
        if isinstance(replies, RayloraError):
            raise replies
        self._write(replies.lines)
        self._answers += sum("answer" in line for line in replies.lines)
        self._tokens += replies.tokens
        self.failures += replies.failures
        if time.monotonic() - self._told > TELL_S:
            self._told = time.monotonic()
            speed = self._tokens / (self._told - self._started)
            emit(StageEvent("batch", f"{self._answers} answers, {speed:.0f} tokens/s"))

    def _write(self, lines: list[dict[str, Any]]) -> None:
        self._book.write(lines)
        self.refusals += [
            f"row {line['row']}, {line['adapter']}: {line['error']}"
            for line in lines
            if "error" in line
        ]


def _chunks(asked: Iterable[Asked], size: int) -> Iterator[list[Asked]]:
    waiting = iter(asked)
    while chunk := list(islice(waiting, size)):
        yield chunk


if __name__ == "__main__":
    sys.exit(drive("raylora.jobs.batch.run", run))
