import json
from pathlib import Path

import pytest

from raylora.config.places import RunPlaces, run_dir
from raylora.jobs import attempts as module
from raylora.jobs.attempts import ATTEMPTS, Attempts


@pytest.fixture
def places(tmp_path: Path) -> RunPlaces:
    places = run_dir(tmp_path, "e", "r")
    places.metadata.mkdir(parents=True)
    return places


@pytest.fixture
def counter(tmp_path: Path, monkeypatch) -> Path:
    """The kernel's counters as a file."""
    file = tmp_path / "vmstat"
    file.write_text("pgfault 3\noom_kill 7\n")
    monkeypatch.setattr(module, "_KERNEL_COUNTERS", (file, tmp_path / "missing"))
    return file


def test_attempts_are_counted_and_written_down(places):
    attempts = Attempts(places)
    assert [attempts.begin(step, 4) for step in (0, 20)] == [1, 2]
    lines = (places.metadata / ATTEMPTS).read_text().splitlines()
    assert [json.loads(line)["resumed_step"] for line in lines] == [0, 20]


def test_the_next_attempt_learns_once_that_memory_ran_out(places):
    assert not Attempts(places).take_memory_note()
    Attempts(places).memory_ran_out("worker 1")
    assert Attempts(places).take_memory_note()
    assert not Attempts(places).take_memory_note()


def test_a_kill_by_the_kernel_is_seen_by_the_next_attempt(places, counter):
    attempts = Attempts(places)
    assert not attempts.was_killed_for_memory()
    assert not attempts.was_killed_for_memory()
    counter.write_text("oom_kill 8\n")
    assert attempts.was_killed_for_memory()
    assert not attempts.was_killed_for_memory()


def test_a_smaller_micro_batch_is_kept_and_a_larger_one_of_the_spec_is_not_taken(places):
    attempts = Attempts(places)
    assert attempts.micro_batch_size(8) == 8
    attempts.keep_micro_batch_size(2)
    assert Attempts(places).micro_batch_size(8) == 2
    assert Attempts(places).micro_batch_size(1) == 1
