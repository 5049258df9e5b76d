"""Rows become replies through Ray Data: one task reads, a pool of actors answers.

A row of the data set, and a block of its own, is what one call of an actor answers, pickled. Ray
Data would otherwise gather rows until a block is full: answers would wait for those after them.
"""

import logging
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pyarrow
import ray
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.util.annotations import RayDeprecationWarning

from raylora.config.batch_spec import BatchSpec
from raylora.errors import RayloraError
from raylora.jobs.batch.answerer import Answerer, Asked, Replies
from raylora.jobs.batch.book import Key
from raylora.jobs.batch.questions import Unasked, questions

BATCHES_AT_ONCE: Final = 4
"""Full batches of the engine in one call of an actor: rows leave and join within it."""
CALLS_AT_ONCE: Final = 2
"""Of an actor: one is answered while the next lies with it already."""
RETRIES: Final = 3
"""Of a call whose actor was lost. The actor is started again as often as it takes."""
AHEAD_BYTES: Final = 256 << 20
"""Of rows and replies between the steps: a task that is this far ahead of the next one waits."""


def replies(spec: BatchSpec, versions: Sequence[str], done: Set[Key]) -> Iterator[Replies]:
    """Ask all rows of all versions, but for what is done; yield replies as they come.

    Needs a connection to the cluster. Raises what the rows or the actors found wrong.
    """
    if next(_open(spec.input, versions, done), None) is None:
        # No process need start, which takes seconds.
        return
    _settle(ray.data.DataContext.get_current())
    serving = spec.serving
    adapters = [version for version in versions if version != serving.model.name]
    # Once for all: whatever was written since, a task that reads again yields the same calls.
    read = partial(_calls, spec, versions, ray.put(done))
    with warnings.catch_warnings():
        # Ray 2.64 is to take max_task_retries away. Without it a call that kills its actor would
        # do so for ever.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        # Ray Data fuses steps that ask for the same, and one actor would do all: these do not.
        answered = ray.data.read_datasource(
            _Rows(read), num_cpus=0, override_num_blocks=1
        ).map_batches(
            _Answering,
            fn_constructor_args=(spec, adapters),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                size=serving.num_replicas, max_tasks_in_flight_per_actor=CALLS_AT_ONCE
            ),
            num_cpus=serving.cpus_per_replica,
            num_gpus=serving.gpus_per_replica,
            max_task_retries=RETRIES,
        )
    # A prefetched block would hold back the one before it.
    for block in answered.iter_batches(
        batch_size=None, batch_format="pyarrow", prefetch_batches=0
    ):
        for found in _values(block):
            if isinstance(found, RayloraError):
                raise found
            yield found


class _Rows(Datasource):
    """What is to be asked, read by one task where the driver is: there the files are found."""

    def __init__(self, read: Callable[[], Iterator[Any]]) -> None:
        super().__init__()
        self._read = read

    @property
    def supports_distributed_reads(self) -> bool:
        return False

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
        unknown = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None)
        return [ReadTask(self._read, unknown)]


@dataclass(frozen=True)
class _Call:
    asked: list[Asked]
    refusals: list[dict[str, Any]]
    """Lines for rows that ask nothing; they go along."""


class _Answering:
    """What runs in each actor of the pool."""

    def __init__(self, spec: BatchSpec, adapters: Sequence[str]) -> None:
        self._answerer = Answerer(spec, adapters)

    def __call__(self, calls: Any) -> Any:
        [call] = _values(calls)
        return _block(call if isinstance(call, RayloraError) else self._replies(call))

    def _replies(self, call: _Call) -> Replies | RayloraError:
        if not call.asked:
            return Replies(call.refusals, 0, [])
        found = self._answerer.answer(call.asked)
        if isinstance(found, RayloraError):
            return found
        return replace(found, lines=[*call.refusals, *found.lines])


def _settle(context: ray.data.DataContext) -> None:
    """How data sets of this process are run; their words stay out of the job's log."""
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # It warns that there are none.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    # A short input has fewer calls than there are actors.
    warnings.filterwarnings("ignore", "The minimum number of concurrent actors")
    # Every row fills a block.
    context.target_max_block_size = 1
    limits = context.execution_options.resource_limits
    context.execution_options.resource_limits = limits.copy(object_store_memory=AHEAD_BYTES)
    # Models load and others' jobs end in their own time.
    context.execution_no_progress_timeout_s = -1


def _calls(spec: BatchSpec, versions: Sequence[str], done: Any) -> Iterator[Any]:
    """Yield what each call of an actor is to answer."""
    size = BATCHES_AT_ONCE * spec.serving.batching.max_batch_size
    open_rows = _open(spec.input, versions, ray.get(done))
    try:
        while chunk := list(islice(open_rows, size)):
            yield _block(
                _Call(
                    [each for each in chunk if isinstance(each, Asked)],
                    [each for each in chunk if not isinstance(each, Asked)],
                )
            )
    except RayloraError as error:
        # As a value: Ray would wrap one that is raised.
        yield _block(error)


def _open(
    source: str, versions: Sequence[str], done: Set[Key]
) -> Iterator[Asked | dict[str, Any]]:
    """What has no line yet; for rows that ask nothing it is here."""
    for found in questions(source, Path.cwd()):
        for version in versions:
            if (found.row, version) in done:
                continue
            if isinstance(found, Unasked):
                named = {} if found.id is None else {"id": found.id}
                yield {"row": found.row, **named, "adapter": version, "error": found.reason}
            else:
                yield Asked(found, version)


def _block(value: object) -> Any:
    return pyarrow.table({_VALUE: pyarrow.array([pickle.dumps(value)], pyarrow.binary())})


def _values(block: Any) -> list[Any]:
    """None in the block that stands for nothing at all."""
    return [pickle.loads(row[_VALUE]) for row in block.to_pylist()]


_VALUE: Final = "value"
