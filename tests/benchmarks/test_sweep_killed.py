"""What a killed sweep is judged by, on logs that are made up."""

from dataclasses import replace

from benchmarks.bars.bar import Verdict
from benchmarks.sweep.job import SweepJob, Trial
from benchmarks.sweep.killed import (
    GRID,
    SAVE_STEPS,
    Disturbed,
    Moment,
    not_again,
    trials_finished,
)

NAMES = [f"t{number + 1:02}" for number in range(len(GRID))]
WHOLE = {name: [f"{name} step {i}" for i in range(GRID.steps)] for name in NAMES}
LEDGER = {"began": NAMES, "ended": NAMES}
HALF = Moment(
    {NAMES[0]: WHOLE[NAMES[0]], NAMES[1]: WHOLE[NAMES[1]][: SAVE_STEPS + 2]},
    frozenset({NAMES[0]}),
)


def disturbed(after: dict[str, list[str]]) -> Disturbed:
    trials = {name: Trial(name, "finished", GRID.steps, {}, {}) for name in after}
    return Disturbed(SweepJob("id", 1.0, NAMES[0], trials), [HALF], after, LEDGER)


def test_a_sweep_that_went_on_where_it_was_is_whole():
    found = disturbed(WHOLE)
    assert trials_finished(found).verdict is Verdict.OK
    assert [bar.verdict for bar in not_again(found)] == [Verdict.OK, Verdict.OK]


def test_a_finished_trial_that_was_trained_again_is_noticed():
    again = [line + "!" for line in WHOLE[NAMES[0]]]
    rerun, _ = not_again(disturbed(WHOLE | {NAMES[0]: again}))
    assert (rerun.verdict, rerun.figure) == (Verdict.SHORT, "0/1")


def test_a_trial_that_began_anew_is_noticed_but_not_one_that_redid_unsaved_steps():
    lines = WHOLE[NAMES[1]]
    redone = [*lines[:SAVE_STEPS], *(line + "!" for line in lines[SAVE_STEPS:])]
    anew = [line + "!" for line in lines]
    assert list(not_again(disturbed(WHOLE | {NAMES[1]: redone})))[1].verdict is Verdict.OK
    assert list(not_again(disturbed(WHOLE | {NAMES[1]: anew})))[1].verdict is Verdict.SHORT


def test_a_trial_that_began_twice_is_noticed():
    twice = {"began": [*NAMES, NAMES[0]], "ended": NAMES}
    assert trials_finished(replace(disturbed(WHOLE), ledger=twice)).verdict is Verdict.SHORT


def test_a_trial_too_many_or_too_short_is_noticed():
    more = WHOLE | {"t99": WHOLE[NAMES[0]]}
    assert trials_finished(disturbed(more)).verdict is Verdict.SHORT
    less = WHOLE | {NAMES[1]: WHOLE[NAMES[1]][:-1]}
    assert trials_finished(disturbed(less)).figure == f"{len(GRID) - 1}/{len(GRID)}"
