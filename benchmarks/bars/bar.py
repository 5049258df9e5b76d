"""What a bar is: a figure, its spread, a target, and whether the target was reached."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
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
    near: bool = False
    """Short, with the target inside the spread: noise may have decided."""

    def after(self, first: "Bar") -> "Bar":
        """This bar as the repetition of another, which it shows."""
        shown = f"repeated; first time {first.figure} ({first.spread})"
        return replace(self, detail=f"{self.detail}; {shown}" if self.detail else shown)

    def line(self) -> str:
        """One row of the report."""
        tail = f"  {self.detail}" if self.detail else ""
        return (
            f"{self.name:<34} {self.figure:>14}  spread {self.spread:<16} "
            f"target {self.target:<16} {self.verdict}{tail}"
        )

    def as_dict(self) -> dict[str, str | bool]:
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


def shown(name: str, values: Sequence[float], unit: str = "", detail: str = "") -> Bar:
    """A figure beside the bars, without a target of its own."""
    figure, spread = _middle(values, unit)
    return Bar(name, figure, spread, "none: shown", Verdict.OK, detail)


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
    figure, spread = _middle(values, unit)
    verdict = Verdict.OK if reached(statistics.median(values)) else Verdict.SHORT
    near = verdict is Verdict.SHORT and any(reached(value) for value in values)
    return Bar(name, figure, spread, f"{sign} {target:.4g}{unit}", verdict, detail, near)


def _middle(values: Sequence[float], unit: str) -> tuple[str, str]:
    """The median, and the range where there is one."""
    spread = f"{min(values):.4g}..{max(values):.4g}" if len(values) > 1 else "one run"
    return f"{statistics.median(values):.4g}{unit}", spread
