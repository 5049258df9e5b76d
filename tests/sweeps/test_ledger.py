"""What a sweep has done is on disk, whenever it ends."""

from pathlib import Path

import pytest

from raylora.sweeps.ledger import LEDGER, Ledger, Proposal
from raylora.sweeps.orders import TrialReport, TrialState


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / LEDGER


def waiting(name: str, step: int, loss: float = 1.0) -> TrialReport:
    return TrialReport(name, TrialState.WAITING, step, {"loss": loss})


def test_what_was_written_is_read_again_in_its_order(path: Path):
    ledger = Ledger(path)
    first, clone = Proposal("t01", {"lora.r": 8}, 0), Proposal("t02", {"lora.r": 4}, None, "t01")
    over = TrialReport("t01", TrialState.FINISHED, 20, {"loss": 0.5})
    ledger.began(first)
    assert ledger.reported(waiting("t01", 10))
    ledger.began(clone)
    assert ledger.reported(waiting("t02", 10))
    ledger.ended(over)

    again = Ledger(path)
    assert again.proposals == [first, clone] and again.tokens == [0]
    assert again.reports == [waiting("t01", 10), waiting("t02", 10), over]
    assert again.is_over("t01") and not again.is_over("t02")


def test_what_is_known_is_not_written_twice(path: Path):
    for attempt in range(2):
        ledger = Ledger(path)
        ledger.began(Proposal("t01", {}, 0))
        assert ledger.reported(waiting("t01", 10)) is (attempt == 0)
        ledger.ended(TrialReport("t01", TrialState.STOPPED, 10))
        assert not ledger.reported(waiting("t01", 20))  # it is over
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3


def test_a_trial_that_went_on_from_another_has_its_settings_and_may_be_less_far(path: Path):
    ledger = Ledger(path)
    first, better = Proposal("t01", {"lora.r": 8}, 0), Proposal("t02", {"lora.r": 4}, 1)
    ledger.began(first)
    ledger.began(better)
    ledger.reported(waiting("t01", 20))
    copy = Proposal("t01", {"lora.r": 4}, 0, copied_from="t02", copies=1)
    ledger.copied(copy, 10)
    assert ledger.reported(waiting("t01", 15))

    again = Ledger(path)
    assert again.proposals == [copy, better]
    assert again.copies["t01"] == [{"from": "t02", "step": 10, "settings": {"lora.r": 4}}]
    assert not again.reported(waiting("t01", 15)) and again.reported(waiting("t01", 20))


def test_a_line_that_was_cut_off_is_left_out(path: Path):
    ledger = Ledger(path)
    ledger.began(Proposal("t01", {}, 0))
    ledger.reported(waiting("t01", 10))
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole[:-7], encoding="utf-8")
    again = Ledger(path)
    assert [known.name for known in again.proposals] == ["t01"] and again.reports == []
    assert again.reported(waiting("t01", 10))
    assert path.read_text(encoding="utf-8") == whole
