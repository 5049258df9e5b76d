"""ASHA as Ray Tune has it, told reports in this order."""

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers.async_hyperband import _Bracket

from raylora.config.sweep_spec import Mode, Scheduler, SearchSpec
from raylora.sweeps.orders import TrialReport, TrialState
from raylora.sweeps.report_order import AsTheyCome, ByRung, report_order

STEP = 5


def at(step: int, **losses: float) -> list[TrialReport]:
    return [TrialReport(n, TrialState.WAITING, step, {"loss": v}) for n, v in losses.items()]


def promoted(groups: Sequence[Sequence[TrialReport]], factor: float, mode: Mode) -> set[str]:
    """By Ray Tune's own rung, which wants more of what it is told."""
    order = ByRung("loss", mode, factor)
    rung: Any = _Bracket(STEP, 100, factor, 0)
    sign = -1 if mode is Mode.MIN else 1
    found: set[str] = set()
    for group in groups:
        for turn in order.turns(group):
            for report in turn:
                told = rung.on_result(
                    SimpleNamespace(trial_id=report.name), STEP, sign * report.metrics["loss"]
                )
                found |= {report.name} if told == "CONTINUE" else set()
    return found


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(("factor", "kept"), [(2, 4), (3, 3), (4, 2)])
@pytest.mark.parametrize("losses", [range(8), range(8, 0, -1), (3, 7, 1, 5, 0, 6, 2, 4)])
def test_of_those_that_come_together_the_best_are_promoted(mode, factor, kept, losses) -> None:
    group = at(STEP, **{f"t{i}": float(loss) for i, loss in enumerate(losses)})
    best = sorted(group, key=lambda r: r.metrics["loss"], reverse=mode is Mode.MAX)[:kept]
    assert promoted([group], factor, mode) == {report.name for report in best}


def test_a_later_group_is_compared_with_all_before_it() -> None:
    first = at(STEP, a=1.0, b=2.0, c=7.0, d=8.0)
    second = at(STEP, e=3.0, f=4.0, g=5.0, h=6.0)
    assert promoted([first, second], 2, Mode.MIN) == {"a", "b", "e", "f"}


def test_what_was_told_before_a_sweep_was_resumed_counts() -> None:
    order = ByRung("loss", Mode.MIN, 2)
    for report in at(STEP, a=1.0, b=2.0):
        order.noted(report)
    turns = order.turns(at(STEP, c=3.0, d=0.0))
    assert [[report.name for report in turn] for turn in turns] == [["d"], ["c"]]


def test_each_step_is_a_rung_of_its_own() -> None:
    turns = ByRung("loss", Mode.MIN, 2).turns([*at(10, a=1.0, b=2.0), *at(5, c=9.0, d=8.0)])
    assert [[report.name for report in turn] for turn in turns] == [["d"], ["c"], ["a"], ["b"]]


def test_who_is_over_or_has_no_metric_is_told_at_once() -> None:
    over = TrialReport("over", TrialState.FAILED, STEP, {"loss": 0.0}, "diverged")
    blank = TrialReport("blank", TrialState.WAITING, STEP)
    turns = ByRung("loss", Mode.MIN, 2).turns([*at(STEP, a=1.0), over, blank])
    assert [[report.name for report in turn] for turn in turns] == [["over", "blank"], ["a"]]


@pytest.mark.parametrize(
    "values", [(math.nan, 1.0, 2.0), (1.0, math.nan, 0.0), (2.0, 1.0, math.nan)]
)
def test_all_are_told_where_a_metric_is_no_number(values) -> None:
    group = at(STEP, **{f"t{i}": value for i, value in enumerate(values)})
    told = [report.name for turn in ByRung("loss", Mode.MIN, 2).turns(group) for report in turn]
    assert sorted(told) == ["t0", "t1", "t2"]


def test_other_schedulers_hear_reports_as_they_come() -> None:
    assert isinstance(report_order(SearchSpec(scheduler=Scheduler.HYPERBAND)), AsTheyCome)
    assert isinstance(report_order(SearchSpec(scheduler=Scheduler.ASHA)), ByRung)
    group = at(STEP, a=2.0, b=1.0)
    assert AsTheyCome().turns(group) == [group]
