"""Requests of users: done, or refused with a reason, and answered in the tracking store."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.stored_sweep import BEST, SWEEP, store_sweep

from raylora.config.sweep_spec import SweepSpec
from raylora.errors import InvalidConfig, NotFound, RayloraError
from raylora.sweeps import control as module
from raylora.sweeps.control import Control, listening
from raylora.tracking.sweep_requests import Answer, CloneTrial, Request, StopTrial, answer_to, ask
from raylora.tracking.sweeps import get_sweep

SETTINGS = {"lora.r": 8, "lora.lora_alpha": 16, "training.learning_rate": 1e-3}
SPACE = {
    "lora.r": {"choice": [4, 8]},
    "lora.lora_alpha": {"times": ["lora.r", 2]},
    "training.learning_rate": {"choice": [1e-3]},
}


class FakeProposer:
    """Takes what is added while it is open."""

    def __init__(self) -> None:
        self.added: list[tuple[dict[str, Any], str | None]] = []
        self.open = True

    def add(self, settings: dict[str, Any], warm_from: str | None) -> str | None:
        self.added.append((settings, warm_from))
        return "t09" if self.open else None


class FakeTrials:
    """One trial."""

    def settings(self, name: str) -> dict[str, Any]:
        if name != "t01":
            raise NotFound(f"there is no trial {name}")
        return SETTINGS


@pytest.fixture
def proposer() -> FakeProposer:
    return FakeProposer()


@pytest.fixture
def control(proposer: FakeProposer) -> Any:
    spec = SweepSpec.model_validate({"training": {"max_steps": 9}, "sweep": {"space": SPACE}})
    nobody: Any = SimpleNamespace()
    trials: Any = FakeTrials()
    proposed: Any = proposer
    return Control(spec, proposed, trials, nobody)


def test_a_clone_has_its_own_values_and_those_that_follow_them(control, proposer):
    assert control.act(CloneTrial("t01", {"lora.r": 32}, warm=True)) == "t09"
    expected = {"lora.r": 32, "lora.lora_alpha": 64, "training.learning_rate": 1e-3}
    assert proposer.added == [(expected, "t01")]


def test_a_clone_may_set_what_would_follow_and_what_is_not_searched(control, proposer):
    wanted = {"lora.r": 32, "lora.lora_alpha": 8.0, "training.weight_decay": 0.1}
    control.act(CloneTrial("t01", wanted))
    assert proposer.added == [({**SETTINGS, **wanted}, None)]


def test_a_clone_that_cannot_be_is_refused(control, proposer):
    with pytest.raises(NotFound):
        control.act(CloneTrial("t07", {}))
    with pytest.raises(InvalidConfig):
        control.act(CloneTrial("t01", {"lora.r": 0}))
    proposer.open = False
    with pytest.raises(RayloraError, match="about to end"):
        control.act(CloneTrial("t01", {}))


def test_a_population_is_not_added_to(proposer):
    search = {"space": SPACE, "scheduler": "pbt"}
    spec = SweepSpec.model_validate({"training": {"max_steps": 9}, "sweep": search})
    nobody: Any = SimpleNamespace()
    trials: Any = FakeTrials()
    with pytest.raises(RayloraError, match="the trials that it began with"):
        Control(spec, proposer, trials, nobody).act(CloneTrial("t01", {}))
    assert proposer.added == []


def test_requests_are_answered_in_the_store(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "PAUSE_S", 0.02)
    uri = store_sweep(tmp_path, empty_store, running=True)
    sweep = get_sweep(uri, SWEEP).summary.mlflow_run_id

    def act(request: Request) -> str:
        if isinstance(request, StopTrial):
            return request.trial
        raise RayloraError("not now", hint="ask later")

    with listening(uri, lambda: sweep, act):
        stop, clone = (
            ask(uri, SWEEP, wanted) for wanted in (StopTrial(BEST), CloneTrial(BEST, {}))
        )
        deadline = time.monotonic() + 10
        while answer_to(uri, sweep, clone.id) is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert answer_to(uri, sweep, stop.id) == Answer(True, BEST)
    assert answer_to(uri, sweep, clone.id) == Answer(False, "not now; ask later")
