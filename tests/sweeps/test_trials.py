"""The trials of a sweep as its driver keeps them; no cluster."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.stored_sweep import BEST, STEPS, SWEEP, store_sweep

from raylora.config.places import run_dir
from raylora.config.sweep_spec import SweepSpec
from raylora.jobs.assignment import Assignment
from raylora.sweeps import trials as module
from raylora.sweeps.ledger import LEDGER, Ledger, Proposal
from raylora.sweeps.orders import TrialReport, TrialState
from raylora.sweeps.trials import Trials
from raylora.tracking.runs import open_run
from raylora.tracking.sweep_facts import TrialStatus
from raylora.tracking.sweeps import get_sweep


def test_a_trial_that_ended_as_its_driver_was_lost_is_closed_by_the_next(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
):
    uri = store_sweep(tmp_path, empty_store, running=True)
    found = get_sweep(uri, SWEEP)
    assert found.trial(BEST).ended is None
    over = TrialReport(BEST, TrialState.FINISHED, STEPS, {"loss": 0.5})
    ledger = Ledger(tmp_path / LEDGER)
    ledger.began(Proposal(BEST, {"lora.r": 32}, 0))
    ledger.ended(over)

    def open_again(spec: Any, run_id: str, uri: str, tags: dict[str, str], *, parent: str) -> Any:
        assert parent == SWEEP
        run: Any = open_run(uri, found.summary.experiment, run_id, "", params={}, tags=tags)
        run.known_within = lambda seconds: True
        return run

    monkeypatch.setattr(module.ray, "get", lambda answer: answer)
    monkeypatch.setattr(module, "open_record", open_again)
    box: Any = SimpleNamespace(
        announce=SimpleNamespace(remote=lambda begin, slot: None),
        end=SimpleNamespace(remote=lambda name: over),
    )
    slots: Any = SimpleNamespace(left=lambda name: None)
    spec = SweepSpec.model_validate({"outputs": str(tmp_path), "training": {"max_steps": STEPS}})
    places = run_dir(tmp_path, "e", SWEEP)
    sweep = Assignment(spec.base, SWEEP, found.summary.mlflow_run_id, uri, places)
    trials = Trials(spec, sweep, box, ledger, slots, "my.yaml")
    trials.began(ledger.proposals[0])
    trials.ended(BEST, "")
    trial = get_sweep(uri, SWEEP).trial(BEST)
    assert trial.state is TrialStatus.FINISHED and trial.ended is not None
