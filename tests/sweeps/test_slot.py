"""Trials in a slot, by orders: real training of a tiny base on one worker, no cluster."""

import json

import pytest
import torch
from peft import PeftModel
from tests.sweeps import scripted
from transformers import AutoModelForCausalLM

from raylora.config.places import RunPlaces
from raylora.config.train_spec import TrainSpec
from raylora.jobs import probe
from raylora.jobs.assignment import PROBE
from raylora.jobs.run_log import METRICS
from raylora.lora.integrity import verify
from raylora.sweeps.orders import Threads, TrialState
from raylora.sweeps.slot import run_slot

pytestmark = pytest.mark.usefixtures("process_group")


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


def test_trials_report_and_finish_with_an_adapter_each(make_trial):
    trials = [make_trial("small", rank=2), make_trial("large", rank=8, learning_rate=1e-3)]
    script = scripted.Script(trials)
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
        assert len(losses) == scripted.STEPS and losses[-1] < losses[0]
        assert script.last(trial.name).metrics["loss"] == losses[-1]
        assert scripted.stored(trial).metrics["loss"].points == scripted.STEPS


def test_it_computes_with_as_many_threads_as_it_is_told(make_trial):
    seen = []

    class Told(scripted.Script):
        def exchange(self, reports, idle):
            seen.append(torch.get_num_threads())
            orders = super().exchange(reports, idle)
            return [Threads(2), *orders] if len(seen) == 2 else orders

    one = make_trial("one")
    before = torch.get_num_threads()
    try:
        run_slot(one.assignment.spec, Told([one]))
    finally:
        torch.set_num_threads(before)
    assert seen[:3] == [before, before, 2] and seen[-1] == 2


def test_a_trial_that_is_ended_leaves_and_the_others_go_on(make_trial):
    trials = [make_trial("good"), make_trial("bad")]
    script = scripted.Script(trials, end_after={"bad": 1})
    run_slot(trials[0].assignment.spec, script)
    assert script.last("bad").state is TrialState.STOPPED and script.last("bad").step == 2
    assert script.last("good").state is TrialState.FINISHED
    assert not trials[1].assignment.places.adapter.exists()


def test_a_trial_that_fails_says_why_and_takes_no_other_with_it(make_trial):
    lost = {"learning_rate": 1e30, "max_grad_norm": 1e30}
    trials = [
        make_trial("diverges", **lost),
        make_trial("good"),
        make_trial("lost", rows="nowhere.jsonl"),
    ]
    script = scripted.Script(trials)
    run_slot(trials[1].assignment.spec, script)
    assert script.last("diverges").state is TrialState.FAILED
    assert "training diverged" in script.last("diverges").error
    assert script.last("lost").state is TrialState.FAILED
    assert "nowhere.jsonl" in script.last("lost").error
    assert script.last("good").state is TrialState.FINISHED


def test_a_metric_of_validations_is_reported_at_validations(make_trial):
    trial = make_trial("v", metric="validation_loss", validation_steps=2)
    script = scripted.Script([trial])
    run_slot(trial.assignment.spec, script)
    assert [report.step for report in script.reports["v"]] == [2, 4, 6]
    assert all("validation_loss" in report.metrics for report in script.reports["v"])


def test_a_trial_that_is_taken_in_again_goes_on_from_its_checkpoint(make_trial):
    trial = make_trial("again")
    run_slot(trial.assignment.spec, scripted.Script([trial], end_after={"again": 2}))
    script = scripted.Script([trial])
    run_slot(trial.assignment.spec, script)
    assert [report.step for report in script.reports["again"]] == [4, 6]
    lines = (trial.assignment.places.logs / METRICS).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, scripted.STEPS + 1))
