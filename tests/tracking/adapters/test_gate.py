import math
from typing import Any

import pytest

from raylora.config.gate_spec import GateSpec
from raylora.tracking.adapters.gate import Check, Evidence, Outcome, judge
from raylora.tracking.adapters.row_scores import collect, row_key

METRIC = "heldout_exact_match"


def evidence(version: str, right: int = 0, of: int = 0, **metrics: Any) -> Evidence:
    """A version with so many right rows among so many."""
    rows = collect((row_key("ask", str(i)), {METRIC: float(i < right)}) for i in range(of))
    return Evidence(version, metrics, rows)


def outcomes(checks) -> dict[str, Outcome]:
    return {check.check: check.outcome for check in checks}


def test_an_empty_gate_asks_for_whole_files_alone() -> None:
    (check,) = judge(GateSpec(), evidence("home@1"), None, None)
    assert (check.check, check.outcome) == ("integrity", Outcome.PASSED)
    (check,) = judge(GateSpec(), evidence("home@1"), None, "digest differs")
    assert (check.outcome, check.detail) == (Outcome.FAILED, "digest differs")


def test_thresholds_name_metrics_of_the_run() -> None:
    gate = GateSpec(at_least={METRIC: 0.9, "json_valid": 1}, at_most={"final_loss": 0.5})
    shown = Evidence("home@1", {METRIC: 0.95, "final_loss": 0.6}, {})
    found = judge(gate, shown, None, None)
    assert outcomes(found) == {
        "integrity": Outcome.PASSED,
        f"{METRIC} >= 0.9": Outcome.PASSED,
        "json_valid >= 1": Outcome.MISSING,
        "final_loss <= 0.5": Outcome.FAILED,
    }
    missing = next(check for check in found if check.outcome is Outcome.MISSING)
    assert missing == Check("json_valid >= 1", Outcome.MISSING, None, "its run has no json_valid")
    assert missing.outcome.holds_back


@pytest.mark.parametrize("gate", [GateSpec(at_least={"a": 0}), GateSpec(at_most={"a": 9})])
def test_what_is_no_number_passes_no_threshold(gate: GateSpec) -> None:
    found = judge(gate, evidence("home@1", a=math.nan), None, None)
    assert found[-1].outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("right", "outcome"),
    [(90, Outcome.PASSED), (88, Outcome.PASSED), (100, Outcome.PASSED), (60, Outcome.FAILED)],
)
def test_worse_is_what_lies_below_the_incumbent_with_all_of_its_interval(
    right: int, outcome: Outcome
) -> None:
    # One row is lost by chance either way, as by two equally good adapters.
    candidate, incumbent = evidence("home@2", right, 100), evidence("home@1", 90, 100)
    lucky = dict(incumbent.rows)
    lucky[row_key("ask", "95")] = {METRIC: 1.0}
    candidate_rows = dict(candidate.rows)
    candidate_rows[row_key("ask", "96")] = {METRIC: 1.0}
    check = judge(
        GateSpec(),
        Evidence("home@2", {}, candidate_rows),
        Evidence("home@1", {}, lucky),
        None,
    )[-1]
    assert check.outcome is outcome
    assert "100 rows" in check.detail
    assert check.found == pytest.approx((right - 90) / 100, abs=0.021)


def test_rows_are_paired_by_what_they_say_not_by_where_they_stand() -> None:
    first = collect([("a", {METRIC: 1.0}), ("b", {METRIC: 1.0}), ("a", {METRIC: 0.0})])
    second = collect([("b", {METRIC: 1.0}), ("a", {METRIC: 1.0}), ("c", {METRIC: 0.0})])
    check = judge(GateSpec(), Evidence("home@2", {}, second), Evidence("home@1", {}, first), None)[
        -1
    ]
    assert check.outcome is Outcome.PASSED
    assert "2 rows" in check.detail


def test_what_cannot_be_compared_is_said_and_holds_back_only_where_it_was_asked_for() -> None:
    scored, bare = evidence("home@1", 5, 10), evidence("home@2")
    unasked = judge(GateSpec(), bare, scored, None)[-1]
    assert unasked.outcome is Outcome.NOT_COMPARED and not unasked.outcome.holds_back
    asked = judge(GateSpec(no_regression=(METRIC,)), bare, scored, None)[-1]
    assert asked.outcome is Outcome.MISSING and asked.found is None
    assert judge(GateSpec(no_regression=()), bare, scored, None)[-1].check == "integrity"


def test_a_version_is_not_compared_with_itself() -> None:
    version = evidence("home@1", 5, 10)
    assert len(judge(GateSpec(), version, version, None)) == 1
