"""Tokenises a spec's data with Ray Data, on all nodes, into the cache that workers map.

Each task reads all rows, which is a hundredth of the work, and encodes every n-th block of them.
Blocks are written in their order, so that the cache is what one process would have made. Workers
of other nodes find it where RAYLORA_CACHE is on storage that all share; else they make their own.

`python -m raylora.jobs.ingest spec.yaml` fills the cache as a job of its own.
"""

import pickle
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any, Final

from raylora.config.compose import read_resolved
from raylora.config.data_spec import DataSpec, SourceSpec
from raylora.config.places import cache
from raylora.config.train_spec import TrainSpec
from raylora.errors import RayloraError
from raylora.jobs.assignment import enter
from raylora.jobs.driver import Given, connect, drive

BLOCK_ROWS: Final = 1024

FAILED: Final = -1
"""Number of a block that holds an error in place of rows."""


def ingest(spec: TrainSpec) -> None:
    """Fill the cache for data.ingest=ray_data; the job's folder is where relative paths start.

    Runs in a task of its own, for the driver has no torch. Raises InvalidData.
    """
    import ray

    error: RayloraError | None = ray.get(ray.remote(num_cpus=0)(_ingest).remote(spec))
    if error is not None:
        raise error


def main(argv: Sequence[str] | None = None) -> int:
    """Ingest the data of a resolved spec on the cluster Ray finds; the exit code."""
    return drive("raylora.jobs.ingest", _run, argv)


def _run(given: Given) -> None:
    connect()
    ingest(read_resolved(given.spec, TrainSpec))


def _ingest(spec: TrainSpec) -> RayloraError | None:
    enter(spec)
    from raylora.jobs.data.loading import load
    from raylora.lora.base import load_tokenizer
    from raylora.lora.sources import fetch

    try:
        load(spec.data, load_tokenizer(fetch(spec.model, cache())), Path.cwd(), encode=_spread)
    except RayloraError as error:
        return error
    return None


def _spread(
    source: SourceSpec, data: DataSpec, tokenizer: Any, base_dir: Path, part: Any
) -> Iterator[Any]:
    """Encode the rows of a part of a source on all CPUs of the cluster; yields them in order."""
    import ray
    import ray.data

    tasks = max(1, int(ray.cluster_resources().get("CPU", 1)))
    ray.data.DataContext.get_current().enable_progress_bars = False
    encode: Any = partial(
        _blocks, source=source, data=data, tokenizer=tokenizer, part=part, tasks=tasks
    )
    numbers = ray.data.from_items([{"task": task} for task in range(tasks)])
    encoded = numbers.map_batches(encode, batch_size=1)
    with tempfile.TemporaryDirectory(prefix="raylora-ingest-") as scratch:
        for row in encoded.iter_rows():
            if row["block"] == FAILED:
                raise pickle.loads(row["rows"])
            (Path(scratch) / str(row["block"])).write_bytes(row["rows"])
        for block in range(len(list(Path(scratch).iterdir()))):
            yield from pickle.loads((Path(scratch) / str(block)).read_bytes())


def _blocks(
    batch: dict[str, Any],
    *,
    source: SourceSpec,
    data: DataSpec,
    tokenizer: Any,
    part: Any,
    tasks: int,
) -> Iterator[dict[str, list[Any]]]:
    """The blocks of one task. Its folder is the job's, on whichever node it runs."""
    from raylora.jobs.data.cache import rows_of
    from raylora.jobs.data.encode import Encoder

    encoder = Encoder(tokenizer, data)
    try:
        rows = rows_of(source, data, Path.cwd(), part)
        for number in count():
            block = list(islice(rows, BLOCK_ROWS))
            if not block:
                return
            if number % tasks == int(batch["task"][0]):
                encoded = pickle.dumps(list(encoder.encode(block)))
                yield {"block": [number], "rows": [encoded]}
    except RayloraError as error:
        yield {"block": [FAILED], "rows": [pickle.dumps(error)]}


if __name__ == "__main__":
    sys.exit(main())
