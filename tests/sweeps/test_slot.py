"""Trials in a slot, by orders: real training of a tiny base on one worker, no cluster."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from raylora.config.places import RunPlaces, run_dir
from raylora.config.train_spec import TrainSpec
from raylora.jobs import probe
from raylora.jobs.assignment import PROBE, Assignment
from raylora.jobs.run_log import METRICS
from raylora.lora.integrity import verify
from raylora.sweeps.orders import Begin, Close, End, GoOn, Order, TrialReport, TrialState
from raylora.sweeps.slot import run_slot
from raylora.tracking.runs import get_run, open_run

STEPS = 6
ROWS = [
    {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]}
    for ask, answer in [("on", '{"a":1}'), ("off", '{"a":0}'), ("up", '{"a":2}'), ("no", "{}")]
]


@pytest.fixture
def make_trial(tiny_base: Path, tmp_path: Path) -> Callable[..., Begin]:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")

    def make(name: str, metric: str = "loss", rank: int = 4, **training: Any) -> Begin:
        spec = TrainSpec.model_validate(
            {
                "model": {"source": "path", "id": str(tiny_base), "name": "t", "dtype": "fp32"},
                "data": {"train": str(training.pop("rows", rows)), "validation": str(rows)},
                "lora": {"r": rank},
                "training": {
                    "max_steps": STEPS,
                    "save_steps": 2,
                    "global_batch_size": 4,
                    "micro_batch_size": 2,
                    "learning_rate": 1e-2,
                    **training,
                },
                "workers": {"num_workers": 1},
                "tracking": {"system_metrics": False},
            }
        )
        places = run_dir(tmp_path, "e", name)
        for folder in places.working:
            folder.mkdir(parents=True)
        uri = f"sqlite:///{tmp_path}/mlflow.db"
        run = open_run(uri, "e", name, name, params={}, tags={})
        return Begin(name, Assignment(spec, name, run.mlflow_run_id, uri, places), metric, 2)

    return make


class Script:
    """Begins all trials, lets them go on, ends those that it is told to after so many reports."""

    def __init__(self, trials: Sequence[Begin], end_after: dict[str, int] | None = None) -> None:
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


def check_logits(places: RunPlaces, spec: TrainSpec) -> None:
    """The adapter on disk, and it alone, gives what the trial's own had given in the bank."""
    base = AutoModelForCausalLM.from_pretrained(spec.model.id, dtype=torch.float32).eval()
    trained = probe.read(places.metadata / PROBE)
    with torch.no_grad():
        plain = base(input_ids=trained.input_ids).logits
        adapted = PeftModel.from_pretrained(base, places.adapter).eval()
        given = adapted(input_ids=trained.input_ids).logits
    assert probe.check(trained, plain, given) < 1e-5
    assert (plain - given).abs().mean() > 1e-3


def test_trials_report_and_finish_with_an_adapter_each(make_trial, process_group):
    trials = [make_trial("small", rank=2), make_trial("large", rank=8, learning_rate=1e-3)]
    script = Script(trials)
    run_slot(trials[0].assignment.spec, script)
    for trial in trials:
        said = script.reports[trial.name]
        assert [report.step for report in said] == [2, 4, 6]
        assert [report.state.is_over for report in said] == [False, False, True]
        assert script.last(trial.name).state is TrialState.FINISHED
        places = trial.assignment.places
        assert verify(places.adapter).r == trial.assignment.spec.lora.r
        check_logits(places, trial.assignment.spec)
        lines = (places.logs / METRICS).read_text(encoding="utf-8").splitlines()
        losses = [json.loads(line)["loss"] for line in lines]
        assert len(losses) == STEPS and losses[-1] < losses[0]
        assert script.last(trial.name).metrics["loss"] == losses[-1]
        run = get_run(trial.assignment.tracking_uri, trial.name)
        assert run.metrics["loss"].points == STEPS


def test_a_trial_that_is_ended_leaves_and_the_others_go_on(make_trial, process_group):
    trials = [make_trial("good"), make_trial("bad")]
    script = Script(trials, end_after={"bad": 1})
    run_slot(trials[0].assignment.spec, script)
    assert script.last("bad").state is TrialState.STOPPED and script.last("bad").step == 2
    assert script.last("good").state is TrialState.FINISHED
    assert not trials[1].assignment.places.adapter.exists()


def test_a_trial_that_fails_says_why_and_takes_no_other_with_it(make_trial, process_group):
    lost = {"learning_rate": 1e30, "max_grad_norm": 1e30}
    trials = [
        make_trial("diverges", **lost),
        make_trial("good"),
        make_trial("lost", rows="nowhere.jsonl"),
    ]
    script = Script(trials)
    run_slot(trials[1].assignment.spec, script)
    assert script.last("diverges").state is TrialState.FAILED
    assert "training diverged" in script.last("diverges").error
    assert script.last("lost").state is TrialState.FAILED
    assert "nowhere.jsonl" in script.last("lost").error
    assert script.last("good").state is TrialState.FINISHED


def test_a_metric_of_validations_is_reported_at_validations(make_trial, process_group):
    trial = make_trial("v", metric="validation_loss", validation_steps=2)
    script = Script([trial])
    run_slot(trial.assignment.spec, script)
    assert [report.step for report in script.reports["v"]] == [2, 4, 6]
    assert all("validation_loss" in report.metrics for report in script.reports["v"])


def test_a_trial_that_is_taken_in_again_goes_on_from_its_checkpoint(make_trial, process_group):
    trial = make_trial("again")
    run_slot(trial.assignment.spec, Script([trial], end_after={"again": 2}))
    script = Script([trial])
    run_slot(trial.assignment.spec, script)
    assert [report.step for report in script.reports["again"]] == [4, 6]
    lines = (trial.assignment.places.logs / METRICS).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, STEPS + 1))
