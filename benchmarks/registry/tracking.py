"""What a tracking server that is away or slow costs a training, and what it has in the end."""

import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.bars import chat_rows
from benchmarks.bars.bar import Bar, at_most, holds
from benchmarks.bars.chat_rows import SHORTEST, ChatRows
from benchmarks.bars.sandbox import Sandbox, sandbox
from benchmarks.bars.smollm2 import smollm2
from benchmarks.registry.gate import gate
from benchmarks.registry.tracking_server import tracking_server
from benchmarks.train.job import TrainedJob, run_job
from raylora.tracking.run import RunStatus
from raylora.tracking.runs import get_run, list_runs
from raylora.tracking.store import connect

STEPS = 60
ROWS_A_STEP = 2
PAIRS = 3
DELAY_S = 30.0
LONGER = 1.05
OVERRIDES = (
    f"training.max_steps={STEPS}",
    f"training.global_batch_size={ROWS_A_STEP}",
    f"training.micro_batch_size={ROWS_A_STEP}",
    "training.save_steps=20",
    # Nobody is waited for: `raylora runs sync` brings the rest.
    "tracking.settle_seconds=0",
)


@dataclass(frozen=True)
class Arrived:
    """What a server has of a job."""

    points: int
    """Right ones: logged by the job, there once, with its value."""
    of: int
    doubled: int
    whole: bool
    """One run, FINISHED, its adapter registered."""


def measure() -> Iterator[Bar]:
    """A job without its server, then jobs with a good one and a slow one in turn."""
    base = smollm2()
    with sandbox() as box:
        rows = chat_rows.write(
            box.folder, "tracking", [SHORTEST] * STEPS * ROWS_A_STEP, base.tokenizer
        )
        box.raylora("cluster", "up").expect()
        with gate(None) as nobody:
            alone = _job(box, rows, nobody.url, "away")
        with tracking_server(box.folder / "mlflow") as url:
            yield from _replayed(box, url, [alone], "server away for the whole run")
            port = int(url.rpartition(":")[2])
            good: list[TrainedJob] = []
            slow: list[TrainedJob] = []
            with gate(port, DELAY_S) as late:
                for pair in range(PAIRS):
                    good.append(_job(box, rows, url, f"good-{pair}"))
                    slow.append(_job(box, rows, late.url, f"slow-{pair}"))
                answers = late.answers
            times = [_step(b) / _step(a) for a, b in zip(good, slow, strict=True)]
            yield at_most(
                f"slow server ({DELAY_S:g} s a reply): step",
                times,
                LONGER,
                "x",
                f"median step {statistics.median(map(_step, good)) * 1000:.0f} ms with a good "
                f"one; {answers} answers came late",
            )
            yield from _replayed(box, url, slow, "slow server")


def _job(box: Sandbox, rows: ChatRows, uri: str, name: str) -> TrainedJob:
    return run_job(box, rows, *OVERRIDES, f"tracking.uri={uri}", f"name={name}")


def _step(job: TrainedJob) -> float:
    """Seconds of the median step: all have the same tokens."""
    return statistics.median(
        SHORTEST * ROWS_A_STEP / rate for rate in job.each("tokens_per_second")
    )


def _replayed(box: Sandbox, url: str, jobs: list[TrainedJob], what: str) -> Iterator[Bar]:
    for _ in jobs:
        box.raylora("runs", "sync", "--all", "--tracking-uri", url).expect()
    found = [_arrived(url, job) for job in jobs]
    points, of = sum(f.points for f in found), sum(f.of for f in found)
    doubled = sum(f.doubled for f in found)
    yield holds(f"{what}: points", points, of, "once each", f"{doubled} doubled")
    whole = sum(f.whole for f in found)
    yield holds(f"{what}: runs", whole, len(jobs), "whole", "one run, FINISHED, registered")


def _arrived(url: str, job: TrainedJob) -> Arrived:
    run_id = job.adapter.parents[1].name
    logged = {
        (key, line["step"]): float(line[key])
        for line in job.steps
        for key in ("loss", "learning_rate", "grad_norm", "tokens_per_second", "memory_bytes")
    }
    run = get_run(url, run_id)
    client = connect(url)
    stored = Counter(
        (point.key, point.step, point.value)
        for key in {key for key, _ in logged}
        for point in client.get_metric_history(run.summary.mlflow_run_id, key)
    )
    times = Counter((key, step) for key, step, _ in stored.elements())
    right = sum(stored[(*place, value)] == 1 == times[place] for place, value in logged.items())
    of_this = [found for found in list_runs(url, limit=1000) if found.run_id == run_id]
    whole = (
        len(of_this) == 1
        and run.summary.status is RunStatus.FINISHED
        and run.summary.adapter is not None
    )
    return Arrived(right, len(logged), sum(n - 1 for n in times.values()), whole)
