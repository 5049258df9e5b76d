"""A job that waits for resources says so, and one that does not wait says nothing."""

import pytest

from raylora.jobs import waiting
from raylora.jobs.waiting import say_what_is_missing


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notices; nobody waits for long."""
    found: list[str] = []
    monkeypatch.setattr(waiting, "emit", lambda event: found.append(event.text))
    monkeypatch.setattr(waiting, "PATIENCE_S", 0.05)
    monkeypatch.setattr(waiting, "PAUSE_S", 0.01)
    return found


def test_where_there_is_enough_nothing_is_said(said) -> None:
    say_what_is_missing({"CPU": 2}, lambda: {"CPU": 2.0, "memory": 1.0})
    assert said == []


def test_what_comes_back_in_time_is_not_missed(said) -> None:
    amounts = iter([0.0, 1.0, 2.0])
    say_what_is_missing({"CPU": 2}, lambda: {"CPU": next(amounts)})
    assert said == []


def test_what_others_hold_is_named(said) -> None:
    say_what_is_missing({"CPU": 2, "GPU": 1}, lambda: {"CPU": 1.0})
    assert said == [
        "waiting for 2 CPU (1 free) and 1 GPU (0 free); the rest is in use: "
        "`raylora jobs list` and `raylora serve status` say by whom"
    ]
