"""What Ray Tune is given to try, and when."""

import math
from pathlib import Path

import pytest

from raylora.sweeps.ledger import Ledger, Proposal
from raylora.sweeps.orders import TrialReport, TrialState
from raylora.sweeps.proposer import Proposer
from raylora.sweeps.sources import Listed, Outcome
from raylora.sweeps.thin_trial import PROPOSAL, STATE, STEP


class Remembering(Listed):
    """Listed settings, and what it was told."""

    def __init__(self, number: int, used: tuple[int, ...] = ()) -> None:
        super().__init__([{"lora.r": r + 1} for r in range(number)], used)
        self.told: dict[int, Outcome] = {}

    def over(self, token: int, outcome: Outcome) -> None:
        self.told[token] = outcome


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "trials.jsonl")


def test_trials_are_numbered_and_the_end_comes_when_all_are_over(ledger: Ledger):
    proposer = Proposer(Remembering(2), "loss", None, ledger)
    first, second = proposer.suggest("a")[PROPOSAL], proposer.suggest("b")[PROPOSAL]
    assert first == Proposal("t01", {"lora.r": 1}, 0)
    assert second == Proposal("t02", {"lora.r": 2}, 1)
    assert proposer.suggest("c") is None  # a user may still ask for another
    proposer.on_trial_complete("a", {})
    proposer.on_trial_complete("b", {})
    assert proposer.suggest("c") == Proposer.FINISHED


def test_no_more_than_at_once_run_at_a_time(ledger: Ledger):
    proposer = Proposer(Remembering(3), "loss", 2, ledger)
    assert proposer.suggest("a") and proposer.suggest("b")
    assert proposer.suggest("c") is None
    proposer.on_trial_complete("a", {})
    assert proposer.suggest("c")[PROPOSAL].name == "t03"


def test_the_source_hears_what_became_of_its_settings(ledger: Ledger):
    source = Remembering(4)
    proposer = Proposer(source, "loss", None, ledger)
    for trial in "abcd":
        proposer.suggest(trial)
    proposer.on_trial_complete("a", {STEP: 20, STATE: "finished", "loss": 0.5})
    proposer.on_trial_complete("b", {STEP: 10, STATE: "waiting", "loss": 0.9})
    proposer.on_trial_complete("c", {STEP: 5, STATE: "waiting", "loss": 1.0}, error=True)
    proposer.on_trial_complete("d", {STEP: 5, STATE: "waiting", "loss": math.nan})
    assert source.told == {
        0: Outcome(20, 0.5, whole=True),
        1: Outcome(10, 0.9, whole=False),
        2: Outcome(5, None, whole=False),
        3: Outcome(5, None, whole=False),
    }


def test_known_proposals_come_first_under_their_names(ledger: Ledger):
    known = [Proposal("t01", {"lora.r": 1}, 0), Proposal("t03", {"lora.r": 9}, None, "t01")]
    for proposal in known:
        ledger.began(proposal)
    source = Remembering(2, used=(0,))
    proposer = Proposer(source, "loss", None, ledger)
    proposed = [proposer.suggest(trial)[PROPOSAL] for trial in "abc"]
    assert proposed == [*known, Proposal("t04", {"lora.r": 2}, 1)]
    proposer.on_trial_complete("b", {STEP: 20, "loss": 1.0})  # nobody's token
    assert source.told == {}


def test_a_user_may_add_settings_while_a_trial_runs(ledger: Ledger):
    proposer = Proposer(Remembering(1), "loss", None, ledger)
    assert proposer.add({"lora.r": 64}, None) is None  # nothing runs
    proposer.suggest("a")
    assert proposer.add({"lora.r": 64}, "t01") == "t02"
    assert proposer.suggest("b")[PROPOSAL] == Proposal("t02", {"lora.r": 64}, None, "t01")


def test_trials_that_were_open_together_are_so_again_however_few_are_left(ledger: Ledger):
    known = [Proposal(f"t{i:02}", {"lora.r": i}, i - 1) for i in (1, 2, 3, 4)]
    for proposal in known[:3]:
        ledger.began(proposal)
    ledger.ended(TrialReport("t01", TrialState.STOPPED, 5))
    ledger.began(known[3])
    ledger.ended(TrialReport("t02", TrialState.STOPPED, 5))
    ledger.ended(TrialReport("t03", TrialState.STOPPED, 5))
    proposer = Proposer(Remembering(6, used=(0, 1, 2, 3)), "loss", 1, ledger)
    proposed = [proposer.suggest(trial) for trial in "abcd"]
    assert [found and found[PROPOSAL].name for found in proposed] == ["t01", "t02", "t03", None]
    proposer.on_trial_complete("a", {})
    assert proposer.suggest("d")[PROPOSAL].name == "t04"
    for trial in "bc":
        proposer.on_trial_complete(trial, {})
    assert proposer.suggest("e") is None  # one trains, and there is room for one
    proposer.on_trial_complete("d", {})
    assert proposer.suggest("e")[PROPOSAL].name == "t05"
    assert proposer.suggest("f") is None
