"""What Ray Tune is given to try, and when."""

import math

from raylora.sweeps.ledger import Proposal
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


def test_trials_are_numbered_and_the_end_comes_when_all_are_over():
    proposer = Proposer(Remembering(2), "loss", None, [])
    first, second = proposer.suggest("a")[PROPOSAL], proposer.suggest("b")[PROPOSAL]
    assert first == Proposal("t01", {"lora.r": 1}, 0)
    assert second == Proposal("t02", {"lora.r": 2}, 1)
    assert proposer.suggest("c") is None  # a user may still ask for another
    proposer.on_trial_complete("a", {})
    proposer.on_trial_complete("b", {})
    assert proposer.suggest("c") == Proposer.FINISHED


def test_no_more_than_at_once_run_at_a_time():
    proposer = Proposer(Remembering(3), "loss", 2, [])
    assert proposer.suggest("a") and proposer.suggest("b")
    assert proposer.suggest("c") is None
    proposer.on_trial_complete("a", {})
    assert proposer.suggest("c")[PROPOSAL].name == "t03"


def test_the_source_hears_what_became_of_its_settings():
    source = Remembering(4)
    proposer = Proposer(source, "loss", None, [])
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


def test_known_proposals_come_first_under_their_names():
    known = [Proposal("t01", {"lora.r": 1}, 0), Proposal("t03", {"lora.r": 9}, None, "t01")]
    source = Remembering(2, used=(0,))
    proposer = Proposer(source, "loss", None, known)
    proposed = [proposer.suggest(trial)[PROPOSAL] for trial in "abc"]
    assert proposed == [*known, Proposal("t04", {"lora.r": 2}, 1)]
    proposer.on_trial_complete("b", {STEP: 20, "loss": 1.0})  # nobody's token
    assert source.told == {}


def test_a_user_may_add_settings_while_a_trial_runs():
    proposer = Proposer(Remembering(1), "loss", None, [])
    assert proposer.add({"lora.r": 64}, None) is None  # nothing runs
    proposer.suggest("a")
    assert proposer.add({"lora.r": 64}, "t01") == "t02"
    assert proposer.suggest("b")[PROPOSAL] == Proposal("t02", {"lora.r": 64}, None, "t01")
