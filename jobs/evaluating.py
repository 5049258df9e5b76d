"""Spreads the rows of an evaluation over Ray actors, each with a base of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from raylora.config.evaluate_spec import EvaluateSpec
from raylora.errors import RayloraError
from raylora.jobs.assignment import enter
from raylora.jobs.evaluate.asked_rows import AskedRows, Read
from raylora.jobs.evaluate.row_result import RowResult
from raylora.jobs.evaluate.subject import Subject

SHARD_BATCHES = 2
"""Batches of answers in a shard: few enough that workers end together, enough to fill batches."""
RESTARTS = 3
"""Of a lost worker; its shard is asked again."""


@dataclass(frozen=True)
class Shard:
    """Rows of one data set that one worker asks."""

    dataset: int
    """Place of the data set in the spec."""
    start: int
    """Place of the first row in the data set."""
    rows: tuple[Read, ...]


def shards(spec: EvaluateSpec, datasets: Sequence[AskedRows], subjects: int) -> list[Shard]:
    """Cut data sets into shards, all subjects asked in each: adapters share their batches."""
    fit = max(1, SHARD_BATCHES * spec.evaluation.batch_size // subjects)
    found: list[Shard] = []
    for place, rows in enumerate(datasets):
        # Never fewer shards than workers, where there are rows enough.
        size = max(1, min(fit, -(-len(rows.rows) // spec.workers.num_workers)))
        found += [
            Shard(place, start, rows.rows[start : start + size])
            for start in range(0, len(rows.rows), size)
        ]
    return found


def ask_on_cluster(
    spec: EvaluateSpec, subjects: Sequence[Subject], wanted: Sequence[Shard]
) -> Iterator[tuple[Shard, list[RowResult]]]:
    """Yield shards with the results of their rows, as they are done.

    Raises InvalidAdapter, InvalidConfig, InvalidData, JobFailed.
    """
    import ray
    from ray.util import ActorPool

    workers = spec.workers
    remote: Any = ray.remote(
        num_cpus=workers.cpus_per_worker,
        num_gpus=workers.gpus_per_worker,
        max_restarts=RESTARTS,
        max_task_retries=RESTARTS,
    )(Worker)
    actors = [remote.remote(spec, subjects) for _ in range(min(workers.num_workers, len(wanted)))]
    pool: Any = ActorPool(actors)
    done: Any = pool.map_unordered(_send, list(wanted))
    for answered in done:
        if isinstance(answered, RayloraError):
            raise answered
        yield answered
    for actor in actors:
        ray.kill(actor)


def _send(actor: Any, shard: Shard) -> Any:
    return actor.ask.remote(shard)


class Worker:
    """One process that answers. The base is loaded at the first shard, so that errors get out."""

    def __init__(self, spec: EvaluateSpec, subjects: Sequence[Subject]) -> None:
        self._spec = spec
        self._subjects = subjects
        self._examiner: Any = None

    def ask(self, shard: Shard) -> tuple[Shard, list[RowResult]] | RayloraError:
        """Results of the shard's rows, or what is wrong with the input."""
        try:
            if self._examiner is None:
                self._examiner = self._load()
            return shard, self._examiner.measure(shard.dataset, shard.rows)
        except RayloraError as error:
            return error

    def _load(self) -> Any:
        enter(self._spec)
        import torch

        from raylora.jobs.evaluate.examiner import Examiner

        torch.set_num_threads(max(1, int(self._spec.workers.cpus_per_worker)))
        return Examiner(self._spec, self._subjects)
