import json
from collections.abc import Callable

import pytest

from raylora.config.compose import load_sweep
from raylora.config.sweep_spec import Mode
from raylora.errors import NotFound, RayloraError
from raylora.tracking import sweep_tags as tags
from raylora.tracking.run import Run, RunStatus
from raylora.tracking.sweep_facts import TrialStatus
from raylora.tracking.sweep_requests import (
    Answer,
    CloneTrial,
    StopTrial,
    answer,
    answer_to,
    ask,
    open_requests,
)
from raylora.tracking.sweeps import get_sweep, histories, list_sweeps

SWEEP = "20260101-120000-5eeeee"
Trial = Callable[..., Run]


@pytest.fixture
def sweep(start) -> Run:
    """A running sweep that minimises the loss."""
    run = start(SWEEP)
    search = load_sweep("quickstart-sweep").spec.sweep
    run.set_tags({tags.SWEEP: tags.search_facts(search, trials=8)})
    return run


@pytest.fixture
def trial(start, sweep: Run) -> Trial:
    """Opens a trial of the sweep, with a loss at each of its steps."""

    def make(name: str, state: TrialStatus, losses: list[float], **more: object) -> Run:
        run = start(f"{SWEEP}-{name}")
        for step, loss in enumerate(losses, 1):
            run.log_metrics({"loss": loss}, step)
        run.flush()
        run.set_tags(
            {
                tags.PARENT: sweep.mlflow_run_id,
                tags.TRIAL: name,
                tags.STATE: state,
                tags.STEP: len(losses),
            }
            | {getattr(tags, key): value for key, value in more.items()}
        )
        return run

    return make


def test_a_sweep_as_it_is_read_back(uri: str, sweep: Run, trial: Trial) -> None:
    trial(
        "t01",
        TrialStatus.FINISHED,
        [2.0, 1.0],
        SETTINGS={"lora.r": 8, "training.learning_rate": 1e-3},
        SUBMIT="raylora submit quickstart lora.r=8",
        MODE="fused",
        ADAPTER_BYTES=4096,
    ).finish(RunStatus.FINISHED)
    trial("t02", TrialStatus.FAILED, [], ERROR="the loss is NaN").finish(RunStatus.FAILED)
    trial("t03", TrialStatus.RUNNING, [1.5])
    sweep.set_tags({tags.BEST_TRIAL: "t01", tags.BEST_ADAPTER: "home@3"})

    found = get_sweep(uri, SWEEP)
    summary = found.summary
    assert (summary.metric, summary.mode, summary.trials) == ("loss", Mode.MIN, 8)
    assert (summary.searcher, summary.scheduler) == ("grid", "asha")
    assert summary.status is RunStatus.RUNNING
    assert (summary.best_trial, summary.best_adapter) == ("t01", "home@3")
    assert summary.states == {"finished": 1, "failed": 1, "running": 1}

    first, second, third = found.trials
    assert first.run_id == f"{SWEEP}-t01"
    assert first.state is TrialStatus.FINISHED
    assert first.settings == {"lora.r": 8, "training.learning_rate": 1e-3}
    assert (first.step, first.metrics) == (2, {"loss": 1.0})
    assert first.submit == "raylora submit quickstart lora.r=8"
    assert (first.mode, first.adapter_bytes) == ("fused", 4096)
    assert first.ended is not None and first.duration_s >= 0
    assert second.error == "the loss is NaN"
    assert (third.ended, third.error, third.adapter_bytes) == (None, "", None)
    assert get_sweep(uri, sweep.mlflow_run_id).trials[0] == first


def test_a_trial_with_the_base_s_own_value_has_it_too(uri: str, start, trial: Trial) -> None:
    trial("t01", TrialStatus.RUNNING, [], SETTINGS={"lora.r": 8, "data.packing": "none"})
    trial("t02", TrialStatus.RUNNING, []).log_params(
        {"lora": {"r": 16, "use_rslora": False}, "data": {"packing": "documents"}}
    )
    first, second = get_sweep(uri, SWEEP).trials
    assert first.settings == {"lora.r": 8, "data.packing": "none"}
    assert second.settings == {"lora.r": 16, "data.packing": "documents"}


def test_a_trial_that_was_begun_again_has_not_failed(uri: str, trial: Trial) -> None:
    trial("t01", TrialStatus.RUNNING, [1.0], ERROR="its worker was lost")
    trial("t02", TrialStatus.FAILED, [1.0])
    first, second = get_sweep(uri, SWEEP).trials
    assert (first.error, second.error) == ("", "it left no reason")


def test_metrics_of_all_trials_by_step(uri: str, trial: Trial) -> None:
    trial("t01", TrialStatus.RUNNING, [2.0, 1.0])
    trial("t02", TrialStatus.RUNNING, [])
    found = histories(uri, get_sweep(uri, SWEEP).trials, "loss")
    assert found == {"t01": [(1, 2.0), (2, 1.0)], "t02": []}


def test_the_hundredth_trial_comes_after_the_ninety_ninth(uri: str, trial: Trial) -> None:
    for name in ("t100", "t99"):
        trial(name, TrialStatus.RUNNING, [])
    assert [t.name for t in get_sweep(uri, SWEEP).trials] == ["t99", "t100"]


def test_ranks_by_steps_then_metric_and_failed_ones_last(uri: str, trial: Trial) -> None:
    trial("t01", TrialStatus.STOPPED, [0.1])
    trial("t02", TrialStatus.FAILED, [0.1, 0.1, 0.1], ERROR="out of memory")
    trial("t03", TrialStatus.FINISHED, [3.0, 1.5])
    trial("t04", TrialStatus.FINISHED, [3.0, 0.5])
    trial("t05", TrialStatus.FINISHED, [3.0, float("nan")])
    ranked = [t.name for t in get_sweep(uri, SWEEP).ranked]
    assert ranked == ["t04", "t03", "t05", "t01", "t02"]


def test_trials_of_a_sweep_that_was_stopped_wait_for_it_to_be_resumed(
    uri: str, sweep: Run, trial: Trial
) -> None:
    trial("t01", TrialStatus.FINISHED, [1.0]).finish(RunStatus.FINISHED)
    trial("t02", TrialStatus.RUNNING, [1.0]).finish(RunStatus.KILLED)
    trial("t03", TrialStatus.RUNNING, [1.0])
    sweep.finish(RunStatus.KILLED)
    states = [t.state for t in get_sweep(uri, SWEEP).trials]
    assert states == [TrialStatus.FINISHED, TrialStatus.WAITING, TrialStatus.WAITING]


@pytest.mark.parametrize(
    ("status", "state"),
    [(RunStatus.FINISHED, TrialStatus.FINISHED), (RunStatus.FAILED, TrialStatus.FAILED)],
)
def test_a_run_that_has_ended_counts_more_than_a_state_that_was_not_updated(
    uri: str, trial: Trial, status: RunStatus, state: TrialStatus
) -> None:
    trial("t01", TrialStatus.RUNNING, [1.0]).finish(status)
    assert get_sweep(uri, SWEEP).trials[0].state is state


def test_lists_sweeps_with_the_states_of_their_trials(uri: str, start, trial: Trial) -> None:
    start("an-ordinary-run")
    trial("t01", TrialStatus.RUNNING, [])
    trial("t02", TrialStatus.STOPPED, [])
    trial("t03", TrialStatus.STOPPED, [])
    later = start("20260102-120000-5eeeee", experiment="others")
    search = load_sweep("quickstart-sweep").spec.sweep
    later.set_tags({tags.SWEEP: tags.search_facts(search, trials=4)})

    newest, older = list_sweeps(uri, limit=10)
    assert (newest.run_id, newest.experiment, newest.trials) == (later.run_id, "others", 4)
    assert (older.run_id, older.states) == (SWEEP, {"running": 1, "stopped": 2})
    assert newest.states == {}
    assert [s.run_id for s in list_sweeps(uri, experiment="tests", limit=10)] == [SWEEP]
    assert [s.run_id for s in list_sweeps(uri, limit=1)] == [later.run_id]
    with pytest.raises(NotFound) as caught:
        list_sweeps(uri, experiment="other", limit=1)
    assert caught.value.hint and "others" in caught.value.hint


def test_a_run_that_is_no_sweep_is_not_found(uri: str, sweep: Run, trial: Trial) -> None:
    trial("t01", TrialStatus.RUNNING, [])
    for wrong in (f"{SWEEP}-t01", "20260101-120000-5eeeef"):
        with pytest.raises(NotFound, match=f"no sweep '{wrong}'") as caught:
            get_sweep(uri, wrong)
        assert caught.value.hint == f"nearest: {SWEEP}"


def test_requests_reach_the_driver_in_order_and_their_answers_come_back(
    uri: str, sweep: Run, trial: Trial
) -> None:
    trial("t01", TrialStatus.RUNNING, [])
    stop = ask(uri, SWEEP, StopTrial("t01"))
    clone = ask(uri, SWEEP, CloneTrial("t01", {"lora.r": 32}, warm=True))
    assert open_requests(uri, sweep.mlflow_run_id) == [stop, clone]

    answer(uri, sweep.mlflow_run_id, stop.id, Answer(False, "it ends by itself now"))
    assert open_requests(uri, sweep.mlflow_run_id) == [clone]
    assert answer_to(uri, sweep.mlflow_run_id, clone.id) is None
    answer(uri, sweep.mlflow_run_id, clone.id, Answer(True, "t09"))
    assert open_requests(uri, sweep.mlflow_run_id) == []
    assert answer_to(uri, sweep.mlflow_run_id, clone.id) == Answer(True, "t09")
    assert answer_to(uri, sweep.mlflow_run_id, stop.id) == Answer(False, "it ends by itself now")


def test_a_request_is_stored_as_the_driver_s_documentation_says(
    uri: str, sweep: Run, trial: Trial
) -> None:
    from raylora.tracking.store import connect

    trial("t01", TrialStatus.FINISHED, [])
    asked = ask(uri, SWEEP, CloneTrial("t01", {"lora.r": 32}))
    stored = connect(uri).get_run(sweep.mlflow_run_id).data.tags
    assert json.loads(stored[f"raylora.request.{asked.id}"]) == {
        "do": "clone",
        "trial": "t01",
        "set": {"lora.r": 32},
        "warm": False,
    }
    answer(uri, sweep.mlflow_run_id, asked.id, Answer(True, "t09"))
    stored = connect(uri).get_run(sweep.mlflow_run_id).data.tags
    assert stored[f"raylora.answer.{asked.id}"] == "done: t09"


def test_tags_that_are_no_requests_are_left_alone(uri: str, sweep: Run, trial: Trial) -> None:
    trial("t01", TrialStatus.RUNNING, [])
    for number, nonsense in enumerate(
        ("no JSON", "[]", '{"trial": "t01"}', '{"do": "fly"}', '{"do": "stop", "x": 1}')
    ):
        sweep.set_tags({f"{tags.REQUEST}{number}": nonsense})
    asked = ask(uri, SWEEP, StopTrial("t01"))
    assert open_requests(uri, sweep.mlflow_run_id) == [asked]


def test_what_nobody_can_do_is_refused(uri: str, sweep: Run, trial: Trial) -> None:
    trial("t01", TrialStatus.FINISHED, [1.0]).finish(RunStatus.FINISHED)
    trial("t02", TrialStatus.RUNNING, [1.0])
    with pytest.raises(NotFound, match="no trial 't20' in sweep") as unknown:
        ask(uri, SWEEP, StopTrial("t20"))
    assert unknown.value.hint and "t02" in unknown.value.hint
    with pytest.raises(RayloraError, match="t01 is finished already, after 1 steps"):
        ask(uri, SWEEP, StopTrial("t01"))
    sweep.finish(RunStatus.KILLED)
    for request in (StopTrial("t02"), CloneTrial("t02", {"lora.r": 32})):
        with pytest.raises(RayloraError, match=r"is over \(KILLED\)") as over:
            ask(uri, SWEEP, request)
        assert over.value.hint == f"raylora sweeps resume {SWEEP}"
    assert open_requests(uri, sweep.mlflow_run_id) == []
