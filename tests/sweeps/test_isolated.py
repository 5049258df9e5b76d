"""A trial with workers of its own, by orders: the ordinary run of one worker, no cluster."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import ray.train
from tests.sweeps import scripted

from raylora.cluster.events import NoticeEvent, parse
from raylora.jobs.run_log import METRICS
from raylora.lora.integrity import verify
from raylora.sweeps.isolated import run_trial
from raylora.sweeps.orders import Close, TrialState

DORA = {"sections": {"lora": {"use_dora": True}}}


@pytest.fixture(autouse=True)
def ray_train(monkeypatch: pytest.MonkeyPatch, process_group: None) -> None:
    """What a worker asks of Ray Train, for one that is alone."""
    monkeypatch.setattr(ray.train, "get_context", lambda: SimpleNamespace(get_local_rank=int))
    monkeypatch.setattr(ray.train, "report", lambda metrics: None)


def run(trial, script):
    report = run_trial(trial.assignment, trial.name, script)
    assert report.name == trial.name
    return report


def test_a_trial_that_cannot_share_reports_and_finishes_with_its_adapter(make_trial, capsys):
    trial = make_trial("dora", **DORA)
    script = scripted.Script([trial])
    finished = run(trial, script)
    assert [(said.step, said.state) for said in script.reports["dora"]] == [
        (2, TrialState.WAITING),
        (4, TrialState.WAITING),
    ]
    losses = scripted.losses(trial)
    assert finished.state is TrialState.FINISHED and finished.step == scripted.STEPS
    assert finished.metrics["loss"] == losses[-1] < losses[0]
    assert verify(trial.assignment.places.adapter, alone=True).r == 4
    assert scripted.stored(trial).metrics["loss"].points == len(losses)
    # A sweep's log would drown in the steps of its trials.
    assert [line for line in capsys.readouterr().out.splitlines() if parse(line)] == []


def test_a_trial_that_is_ended_stops_where_it_stands(make_trial):
    trial = make_trial("ended")
    stopped = run(trial, scripted.Script([trial], end_after={"ended": 1}))
    assert stopped.state is TrialState.STOPPED and stopped.step == 2
    assert not trial.assignment.places.adapter.exists()


def test_a_trial_that_is_ended_between_reports_stops_at_the_next_step(make_trial):
    trial = make_trial("ended", metric="validation_loss", validation_steps=6)

    class Ending(scripted.Script):
        def exchange(self, reports, idle):
            return super().exchange(reports, idle) if idle else [Close()]

    stopped = run(trial, Ending([trial]))
    assert stopped.state is TrialState.STOPPED and stopped.step == 1


def test_a_trial_that_is_ended_before_it_begins_loads_nothing(make_trial):
    trial = make_trial("never", sections={"model": {"source": "path", "id": "/nowhere"}})
    stopped = run(trial, scripted.Script([]))  # which closes at once
    assert stopped.state is TrialState.STOPPED and stopped.step == 0


@pytest.mark.parametrize(
    ("training", "says"),
    [
        ({"rows": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"learning_rate": 1e30, "max_grad_norm": 1e30}, "training diverged"),
    ],
)
def test_a_trial_that_fails_says_why(make_trial, training, says):
    trial = make_trial("fails", **training)
    failed = run(trial, scripted.Script([trial]))
    assert failed.state is TrialState.FAILED and says in failed.error


def test_workers_that_begin_again_go_on_and_report_only_what_is_new(make_trial, capsys):
    trial = make_trial("again", metric="validation_loss", validation_steps=2)

    class Killed(scripted.Script):
        def exchange(self, reports, idle):
            if any(report.step == 4 for report in reports):
                raise KeyboardInterrupt
            return super().exchange(reports, idle)

    with pytest.raises(KeyboardInterrupt):
        run(trial, Killed([trial]))
    script = scripted.Script([replace(trial, after_step=4)])
    finished = run(trial, script)
    assert script.reports["again"] == []
    lines = (trial.assignment.places.logs / METRICS).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, scripted.STEPS + 1))
    assert finished.metrics["validation_loss"] == scripted.validations(trial)[-1]
    said = [event for line in capsys.readouterr().out.splitlines() if (event := parse(line))]
    assert said == [NoticeEvent("trial again: its workers began again after step 2")]


def test_what_was_known_at_the_last_step_is_known_again(make_trial):
    trial = make_trial("done", metric="validation_loss", validation_steps=2)
    first = run(trial, scripted.Script([trial]))
    again = run(trial, scripted.Script([trial]))
    assert again == first and again.metrics.keys() == {"loss", "grad_norm", "validation_loss"}
