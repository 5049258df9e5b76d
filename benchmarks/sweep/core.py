"""Trials trained by the numeric core alone, fused or each by itself, in child processes."""

import json
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from benchmarks.bars.fresh import REPOSITORY
from benchmarks.bars.sandbox import own_environment
from benchmarks.bars.spoken import child
from raylora.config.places import RunPlaces, run_dir
from raylora.config.train_spec import TrainSpec
from raylora.jobs.run_log import METRICS
from raylora.lora.adapter_config import WEIGHTS

TASKS_S = 1800.0


class Mode(StrEnum):
    """How the trials of a task train."""

    ALONE = "alone"
    """One after another, each with the base for itself."""
    FUSED = "fused"
    """In one slot."""
    STOPPED = "stopped"
    """In one slot, where each is ended at its first report and another begins."""


@dataclass(frozen=True)
class Answer:
    """A task that is done."""

    peak_bytes: int
    """Resident memory that its process has needed so far."""
    left: int
    """Adapters and threads of trials that are still in the slot when all were ended."""


@dataclass(frozen=True)
class Task:
    """Trials to train, and where what they leave goes."""

    name: str
    mode: Mode
    specs: Mapping[str, TrainSpec]
    """By name of the trial."""
    folder: Path

    def places(self, trial: str) -> RunPlaces:
        """The folders of one trial."""
        return run_dir(self.folder, "bars", trial)

    def losses(self, trial: str) -> list[float]:
        """Of each step."""
        lines = (self.places(trial).logs / METRICS).read_text(encoding="utf-8").splitlines()
        return [float(json.loads(line)["loss"]) for line in lines]

    def weights(self, trial: str) -> Path:
        """A and B of the finished adapter."""
        return self.places(trial).adapter / WEIGHTS

    def line(self) -> str:
        """As the program is told."""
        specs = {name: spec.model_dump(mode="json") for name, spec in self.specs.items()}
        told = {"name": self.name, "mode": self.mode, "folder": str(self.folder), "specs": specs}
        return json.dumps(told)

    @classmethod
    def parse(cls, line: str) -> "Task":
        """What `line` gave."""
        told = json.loads(line)
        specs = {
            name: TrainSpec.model_validate_json(json.dumps(spec))
            for name, spec in told["specs"].items()
        }
        return cls(told["name"], Mode(told["mode"]), specs, Path(told["folder"]))


def run_tasks(
    tasks: Sequence[Task], *, threads: int, processes: int = 1, home: Path | None = None
) -> dict[str, Answer]:
    """Run all tasks, so many at a time; the answers by name of the task.

    home: RAYLORA_HOME of the processes, by which their memory is found. Raises RuntimeError where
    one of them dies.
    """
    waiting, answers = deque(tasks), dict[str, Answer]()
    with ThreadPoolExecutor(processes) as pool:
        works = [
            pool.submit(_work, waiting, answers, threads, _environment(threads, home))
            for _ in range(processes)
        ]
        for work in works:
            work.result()
    return answers


def _work(
    waiting: deque[Task], answers: dict[str, Answer], threads: int, environment: dict[str, str]
) -> None:
    """One process, which takes the next task until none is left."""
    command = (sys.executable, "-m", "benchmarks.sweep.core_program", str(threads))
    with child(command, REPOSITORY, environment, TASKS_S) as running:
        said = (line for _, line in running.heard() if "done" in line)
        for task in _taken(waiting):
            try:
                running.tell(task.line())
            except BrokenPipeError:
                raise running.fault(f"{task.name} crashed") from None
            line = next(said, None)
            if line is None:
                raise running.fault(f"{task.name} crashed")
            answers[task.name] = Answer(line["peak_bytes"], line["left"])


def _taken(waiting: deque[Task]) -> Iterator[Task]:
    with suppress(IndexError):
        while True:
            yield waiting.popleft()


def _environment(threads: int, home: Path | None) -> dict[str, str]:
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    marked = {} if home is None else {"RAYLORA_HOME": str(home)}
    return own_environment() | quiet | marked | {"OMP_NUM_THREADS": str(threads)}
