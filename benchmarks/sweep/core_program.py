"""Trains trials in this process, as told on stdin: `python -m benchmarks.sweep.core_program N`.

N is the number of threads. A line is a task of core.py; the answer is {"done": its name,
...}, an Answer.
"""

import json
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from benchmarks.sweep.core import Mode, Task
from benchmarks.sweep.core_alone import Bench, join_group_of_one
from benchmarks.sweep.core_fused import stop_each, train_fused
from raylora.config.model_spec import ModelSpec
from raylora.jobs.assignment import Assignment
from raylora.jobs.run_log import RunLog
from raylora.jobs.train.observer import NullObserver, StepReport
from raylora.tracking.spooling.tracked import start

EXPERIMENT = "bars"


def main() -> None:
    """Until stdin ends."""
    join_group_of_one(int(sys.argv[1]))
    for line in sys.stdin:
        task = Task.parse(line)
        trials = _assignments(task)
        left = 0
        match task.mode:
            case Mode.FUSED:
                train_fused(trials)
            case Mode.STOPPED:
                left = stop_each(trials)
            case Mode.ALONE:
                for trial in trials:
                    _train_alone(trial)
        answer = {"done": task.name, "peak_bytes": _peak_bytes(), "left": left}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


class _Logged(NullObserver):
    """Keeps the numbers of a trial as those of a run are kept."""

    def __init__(self, log: RunLog) -> None:
        self._log = log

    def resumed(self, step: int) -> None:
        """See Observer."""
        self._log.begin(step)

    def stepped(self, report: StepReport) -> None:
        """See Observer."""
        self._log.step(report)


@lru_cache(maxsize=1)
def _bench(model: str) -> Bench:
    return Bench(ModelSpec.model_validate_json(model))


def _train_alone(trial: Assignment) -> None:
    log = RunLog(trial)
    try:
        places = trial.places
        _bench(trial.spec.model.model_dump_json()).train_and_save(
            trial.spec, _Logged(log), places.checkpoints, places.adapter
        )
    finally:
        log.close()


def _assignments(task: Task) -> Sequence[Assignment]:
    uri = f"sqlite:///{task.folder}/mlflow.db"
    made: list[Assignment] = []
    for name, spec in task.specs.items():
        places = task.places(name)
        for folder in places.working:
            folder.mkdir(parents=True, exist_ok=True)
        run = start(uri, EXPERIMENT, name, name, places.tracking, params={}, tags={})
        made.append(Assignment(spec, name, run.mlflow_run_id, uri, places))
    return made


def _peak_bytes() -> int:
    """Most resident memory so far; getrusage would count what the parent had."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM")


if __name__ == "__main__":
    main()
