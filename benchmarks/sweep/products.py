"""What fusing cannot save: the products of the frozen base, for every token of every trial.

Of a sweep's time they say how much faster it could be at most, with adapters, attention,
optimizers, Python and Ray at no cost.
"""

import json
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks.bars.chat_rows import ChatRows
from benchmarks.bars.fresh import REPOSITORY
from benchmarks.bars.sandbox import own_environment
from benchmarks.bars.spoken import child

PASSES = 5
PROGRAM_S = 300.0


@dataclass(frozen=True)
class Step:
    """Of one trial, on average."""

    tokens: float
    labelled: float

    @staticmethod
    def of(rows: ChatRows, rows_a_step: int) -> "Step":
        """In a measurement with these rows."""
        each = rows_a_step / len(rows.lengths)
        return Step(each * sum(rows.lengths), each * sum(rows.supervised))

    def pass_seconds(self, trials: int, *, threads: int = 1, at_once: int = 1) -> float:
        """Of the products of a pass of so many trials, in each of `at_once` processes."""
        tokens, labelled = round(trials * self.tokens), round(trials * self.labelled)
        with ThreadPoolExecutor(at_once) as pool:
            found = pool.map(lambda _: _measured(tokens, labelled, threads), range(at_once))
            return statistics.mean(found)


def _measured(tokens: int, labelled: int, threads: int) -> float:
    told = {"tokens": tokens, "labelled": labelled, "threads": threads, "passes": PASSES}
    command = (sys.executable, "-m", "benchmarks.sweep.core_products", json.dumps(told))
    environment = own_environment() | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    with child(command, REPOSITORY, environment, PROGRAM_S) as running:
        seconds = [float(line["seconds"]) for _, line in running.heard() if "seconds" in line]
        if running.process.wait() != 0 or len(seconds) != PASSES:
            raise running.fault("the products of the base crashed")
    return statistics.median(seconds)
