"""What a bar is: a figure, its spread, a target, and whether the target was reached."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a bar ended."""

    OK = "ok"
    SHORT = "short"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Bar:
    """One measured promise."""

    name: str
    figure: str
    spread: str
    target: str
    verdict: Verdict
    detail: str = ""

    def line(self) -> str:
        """One row of the report."""
        tail = f"  {self.detail}" if self.detail else ""
        return (
            f"{self.name:<34} {self.figure:>14}  spread {self.spread:<16} "
            f"target {self.target:<16} {self.verdict}{tail}"
        )

    def as_dict(self) -> dict[str, str]:
        """The same row for the JSON report."""
        return asdict(self)


def at_most(
    name: str, values: Sequence[float], target: float, unit: str = "", detail: str = ""
) -> Bar:
    """Bar whose median may not exceed the target."""
    return _bar(name, values, target, unit, "<=", lambda v: v <= target, detail)


def at_least(
    name: str, values: Sequence[float], target: float, unit: str = "", detail: str = ""
) -> Bar:
    """Bar whose median may not fall below the target."""
    return _bar(name, values, target, unit, ">=", lambda v: v >= target, detail)


def holds(name: str, passed: int, of: int, what: str, detail: str = "") -> Bar:
    """Bar of checks that must all pass."""
    verdict = Verdict.OK if of > 0 and passed == of else Verdict.SHORT
    return Bar(name, f"{passed}/{of}", "-", f"{of}/{of} {what}", verdict, detail)


def not_measured(name: str, reason: str) -> Bar:
    """Bar that this machine cannot show; never counted as reached."""
    return Bar(name, "-", "-", "-", Verdict.NOT_MEASURED, reason)


def failed(name: str, target: str, reason: str) -> Bar:
    """Bar whose measurement or peer broke: short, with the reason."""
    return Bar(name, "-", "-", target, Verdict.SHORT, reason)


def _bar(
    name: str,
    values: Sequence[float],
    target: float,
    unit: str,
    sign: str,
    reached: Callable[[float], bool],
    detail: str,
) -> Bar:
    median = statistics.median(values)
    spread = f"{min(values):.4g}..{max(values):.4g}" if len(values) > 1 else "one run"
    verdict = Verdict.OK if reached(median) else Verdict.SHORT
    return Bar(name, f"{median:.4g}{unit}", spread, f"{sign} {target:.4g}{unit}", verdict, detail)
