"""Which trial of a sweep is the best: the one rule of driver, command line and report."""

import math
from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from raylora.config.sweep_spec import Mode


class Ranked(Protocol):
    """What the rule looks at."""

    @property
    def step(self) -> int:
        """Optimizer steps done at the last report."""
        ...

    @property
    def metrics(self) -> Mapping[str, float]:
        """The last value of each."""
        ...

    @property
    def error(self) -> str:
        """Why it failed; empty where it did not."""
        ...


SomeTrial = TypeVar("SomeTrial", bound=Ranked)


def ranked(trials: Iterable[SomeTrial], metric: str, mode: Mode) -> list[SomeTrial]:
    """The best first; those that went further count more, failed ones come last.

    A trial that was ended early has a value of an early step, which says nothing about others'
    later ones.
    """

    def key(trial: SomeTrial) -> tuple[bool, int, float]:
        value = trial.metrics.get(metric, math.nan)
        worse = value if mode is Mode.MIN else -value
        return bool(trial.error), -trial.step, math.inf if math.isnan(worse) else worse

    return sorted(trials, key=key)
