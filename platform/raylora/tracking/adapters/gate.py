"""The gate of a promotion: a pure judgement of what two versions have shown."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from raylora.config.gate_spec import GateSpec
from raylora.tracking.adapters.row_scores import RowScores, differences, metrics_of
from raylora.tracking.bootstrap import bootstrap


class Outcome(StrEnum):
    """How one check of a gate ended."""

    PASSED = "passed"
    FAILED = "failed"
    MISSING = "missing"
    """The figure that was asked for is not there, which is no zero."""
    NOT_COMPARED = "not compared"
    """Nothing asked for it by name, and there is nothing to compare."""

    @property
    def holds_back(self) -> bool:
        """Whether the alias may not move."""
        return self in (Outcome.FAILED, Outcome.MISSING)


@dataclass(frozen=True)
class Check:
    """One question of a gate, and its answer."""

    check: str
    outcome: Outcome
    found: float | None
    """The figure; None where there is none."""
    detail: str = ""


@dataclass(frozen=True)
class Evidence:
    """What is known of a version."""

    version: str
    metrics: Mapping[str, float]
    """Of its run."""
    rows: RowScores
    """Of its held-out rows; empty where none are kept."""


def judge(
    gate: GateSpec, candidate: Evidence, incumbent: Evidence | None, fault: str | None
) -> Sequence[Check]:
    """Every check of the gate. `fault`: what is wrong with the candidate's files, if anything."""
    outcome = Outcome.FAILED if fault else Outcome.PASSED
    checks = [Check("integrity", outcome, None, fault or "the files are those that were verified")]
    for metric, limit in gate.at_least.items():
        checks.append(_threshold(candidate.metrics.get(metric), metric, ">=", limit))
    for metric, limit in gate.at_most.items():
        checks.append(_threshold(candidate.metrics.get(metric), metric, "<=", limit))
    if incumbent is not None and incumbent.version != candidate.version:
        checks += _regressions(gate, candidate, incumbent)
    return checks


def _threshold(found: float | None, metric: str, sign: str, limit: float) -> Check:
    name = f"{metric} {sign} {limit:g}"
    if found is None:
        return Check(name, Outcome.MISSING, None, f"its run has no {metric}")
    reached = found >= limit if sign == ">=" else found <= limit
    return Check(name, Outcome.PASSED if reached else Outcome.FAILED, found)


def _regressions(gate: GateSpec, candidate: Evidence, incumbent: Evidence) -> Iterator[Check]:
    asked = gate.no_regression
    both = metrics_of(candidate.rows) & metrics_of(incumbent.rows)
    for metric in sorted(both) if asked is None else asked:
        name = f"{metric} not below {incumbent.version}"
        found = differences(candidate.rows, incumbent.rows, metric)
        if not found:
            reason = f"no row was scored with {metric} for both"
            outcome = Outcome.NOT_COMPARED if asked is None else Outcome.MISSING
            yield Check(name, outcome, None, reason)
            continue
        interval = bootstrap(found, confidence=gate.confidence)
        worse = interval.high < 0
        detail = (
            f"difference {interval.low:+.4f} to {interval.high:+.4f} "
            f"({gate.confidence:.0%}, {len(found)} rows)"
        )
        yield Check(name, Outcome.FAILED if worse else Outcome.PASSED, interval.mean, detail)
    if asked is None and not both:
        name = f"rows beside {incumbent.version}"
        yield Check(name, Outcome.NOT_COMPARED, None, "one of the two has no scores of rows")
