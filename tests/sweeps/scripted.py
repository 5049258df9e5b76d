"""Tiny trials with orders from a script, in this process or as workers: `scripted.py '{...}'`.

As a worker of several it takes part in a slot for each scenario it is given; the first one prints,
as its last line, what became of the trials as JSON.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from transformers import LlamaModel

from raylora.config.places import run_dir
from raylora.config.train_spec import TrainSpec
from raylora.jobs.assignment import Assignment
from raylora.jobs.run_log import METRICS, VALIDATIONS
from raylora.sweeps.orders import Begin, Close, End, GoOn, Order, TrialReport
from raylora.sweeps.slot import run_slot
from raylora.tracking.run_facts import RunDetails
from raylora.tracking.runs import get_run
from raylora.tracking.spooling.courier import courier_of
from raylora.tracking.spooling.tracked import start

STEPS = 6
ROWS = [
    {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]}
    for ask, answer in [("on", '{"a":1}'), ("off", '{"a":0}'), ("up", '{"a":2}'), ("no", "{}")]
]


def write_rows(path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def spec_of(base: Path, rows: Path | str, held_out: Path, **sections: Any) -> TrainSpec:
    """A tiny trial; sections override."""
    training = {
        "max_steps": STEPS,
        "save_steps": 2,
        "global_batch_size": 4,
        "micro_batch_size": 2,
        "learning_rate": 1e-2,
    }
    return TrainSpec.model_validate(
        {
            "model": {"source": "path", "id": str(base), "name": "t", "dtype": "fp32"},
            "data": {"train": str(rows), "validation": str(held_out)},
            "workers": {"num_workers": 1},
            "tracking": {"system_metrics": False},
            **sections,
            "training": {**training, **sections.get("training", {})},
        }
    )


def begin(folder: Path, name: str, spec: TrainSpec, metric: str = "loss") -> Begin:
    """The order to begin a trial that reports every second step; its run and folders are there."""
    places = run_dir(folder, "e", name)
    for working in places.working:
        working.mkdir(parents=True)
    uri = f"sqlite:///{folder}/mlflow.db"
    run = start(uri, "e", name, name, places.tracking, params={}, tags={})
    return Begin(name, Assignment(spec, name, run.mlflow_run_id, uri, places), metric, 2)


def stored(trial: Begin) -> RunDetails:
    """Its run, once all of it is in the store."""
    courier = courier_of(trial.assignment.tracking_uri)
    assert courier.wait(lambda: not courier.waiting, 60)
    return get_run(trial.assignment.tracking_uri, trial.name)


def losses(trial: Begin) -> list[float]:
    """Of each step."""
    return [line["loss"] for line in _lines(trial.assignment.places.logs / METRICS)]


def validations(trial: Begin) -> list[float]:
    """Of each look at held-out rows."""
    return [line["loss"] for line in _lines(trial.assignment.places.logs / VALIDATIONS)]


class Script:
    """Begins all trials, lets them go on, ends those that it is told to after so many reports."""

    def __init__(
        self, trials: Sequence[Begin], end_after: Mapping[str, int] | None = None
    ) -> None:
        self.reports: dict[str, list[TrialReport]] = {trial.name: [] for trial in trials}
        self._begin = list(trials)
        self._end_after = end_after or {}

    def opened(self) -> None:
        pass

    def exchange(self, reports: Sequence[TrialReport], idle: bool) -> Sequence[Order]:
        orders: list[Order] = [*self._begin]
        self._begin = []
        for report in reports:
            self.reports[report.name].append(report)
            if not report.state.is_over:
                ended = len(self.reports[report.name]) == self._end_after.get(report.name)
                orders.append(End(report.name) if ended else GoOn(report.name))
        over = all(said and said[-1].state.is_over for said in self.reports.values())
        return [*orders, Close()] if over else orders

    def last(self, name: str) -> TrialReport:
        return self.reports[name][-1]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# --- One of several workers ----------------------------------------------------------------------


def main() -> None:
    settings = json.loads(sys.argv[1])
    rank, world = settings["rank"], settings["world"]
    torch.set_num_threads(1)
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(settings["port"]),
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
    )
    dist.init_process_group("gloo")
    folder = Path(settings["folder"])
    # Each worker has a folder of its own, as on machines that share nothing but the outputs.
    os.chdir(folder / f"worker-{rank}")
    found = {
        name: play(folder / name, Path(settings["base"]), scenario)
        for name, scenario in settings["scenarios"].items()
    }
    sys.stdout.write(json.dumps(found) + "\n")


def play(folder: Path, base: Path, scenario: Mapping[str, Any]) -> dict[str, Any]:
    """Take part in a slot; what became of each trial, on the first worker."""
    held_out = folder.parent / "rows.jsonl"
    specs = {
        name: spec_of(base, trial.pop("rows", held_out), held_out, **trial)
        for name, trial in scenario["trials"].items()
    }
    forward = LlamaModel.forward
    if scenario.get("short") == dist.get_rank():
        LlamaModel.forward = _with_room_for_one_row(forward)
    try:
        slot = next(iter(specs.values()))
        if dist.get_rank() > 0:
            run_slot(slot, Script([]))
            return {}
        folder.mkdir()
        trials = [begin(folder, name, spec) for name, spec in specs.items()]
        script = Script(trials, scenario.get("end_after"))
        run_slot(slot, script)
    finally:
        LlamaModel.forward = forward
    return {trial.name: _seen(trial, script.last(trial.name)) for trial in trials}


def _seen(trial: Begin, last: TrialReport) -> dict[str, Any]:
    places = trial.assignment.places
    trained = (places.logs / METRICS).exists()
    return {
        **asdict(last),
        "losses": losses(trial) if trained else [],
        "validations": validations(trial) if (places.logs / VALIDATIONS).exists() else [],
        "saved": places.adapter.exists(),
    }


def _with_room_for_one_row(forward: Any) -> Any:
    def short(self: Any, input_ids: Any = None, **rest: Any) -> Any:
        documents = rest.get("documents")
        if documents is not None and len(documents.lengths) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")
        return forward(self, input_ids=input_ids, **rest)

    return short


if __name__ == "__main__":
    main()
