"""Where settings come from: a list that is drawn beforehand, or one that learns from trials."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from raylora.config.dotted import get
from raylora.config.schema import keys_of
from raylora.config.sweep_spec import Searcher, SweepSpec
from raylora.config.train_spec import TrainSpec
from raylora.sweeps.proposals import Dice, draw, grid, settings

JOURNAL = "optuna.log"
"""In the sweep's metadata: what the estimator has seen."""
START_UP = 5
"""Trials that TPE draws at random before it estimates. Optuna's own 10 are more than a whole sweep
of eight."""


@dataclass(frozen=True)
class Outcome:
    """What became of proposed settings."""

    step: int
    """Optimizer steps that the value is of."""
    value: float | None
    """None where the trial failed, or ended before it reported."""
    whole: bool
    """Whether it was trained to its last step."""


class Source(Protocol):
    """Proposes settings, each under a token."""

    @property
    def left(self) -> int:
        """How many are still to come."""
        ...

    @property
    def foreseen(self) -> Sequence[Mapping[str, Any]]:
        """Those of them that do not depend on what becomes of others."""
        ...

    def next(self) -> tuple[int, Mapping[str, Any]] | None:
        """Another token and settings; None at the end."""
        ...

    def over(self, token: int, outcome: Outcome) -> None:
        """Hear what became of settings."""
        ...


def source_of(spec: SweepSpec, folder: Path, used: Sequence[int]) -> Source:
    """The source that the spec names. folder: for its state; used: tokens proposed before."""
    search, base = spec.sweep, _values(spec.base)
    if search.searcher is Searcher.TPE:
        return Estimator(spec, folder / JOURNAL, used)
    if search.searcher is Searcher.GRID:
        points = grid(search.space, base)[: search.trials]
    else:
        dice = Dice(search.seed)
        points = [draw(search.space, base, dice) for _ in range(search.trials or 1)]
    return Listed([settings(search.space, point) for point in points], used)


class Listed:
    """Settings that are known beforehand; the token is the place."""

    def __init__(self, all_settings: Sequence[Mapping[str, Any]], used: Sequence[int]) -> None:
        self._waiting = [
            (place, found) for place, found in enumerate(all_settings) if place not in used
        ]

    @property
    def left(self) -> int:
        """See Source."""
        return len(self._waiting)

    @property
    def foreseen(self) -> Sequence[Mapping[str, Any]]:
        """See Source."""
        return [settings for _, settings in self._waiting]

    def next(self) -> tuple[int, Mapping[str, Any]] | None:
        """See Source."""
        return self._waiting.pop(0) if self._waiting else None

    def over(self, token: int, outcome: Outcome) -> None:
        """See Source."""


class Estimator:
    """Tree-structured Parzen estimator (Bergstra et al., 2011), Optuna's; its state is on disk."""

    def __init__(self, spec: SweepSpec, journal: Path, used: Sequence[int]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        search = spec.sweep
        self._space = search.space
        self._base = _values(spec.base)
        self.foreseen: Sequence[Mapping[str, Any]] = ()
        self.left = max(0, (search.trials or 1) - len(used))
        self._asked: dict[int, Trial] = {}
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))),
            study_name="sweep",
            load_if_exists=True,
            direction=search.mode.direction,
            # A resumed sweep must not draw again what it drew first.
            sampler=optuna.samplers.TPESampler(
                seed=search.seed + len(used), n_startup_trials=START_UP, constant_liar=True
            ),
        )

    def next(self) -> tuple[int, Mapping[str, Any]] | None:
        """See Source."""
        if not self.left:
            return None
        self.left -= 1
        trial = self._study.ask()
        self._asked[trial.number] = trial
        return trial.number, settings(self._space, draw(self._space, self._base, trial))

    def over(self, token: int, outcome: Outcome) -> None:
        """See Source. What an earlier attempt has told is not told again."""
        if self._study.trials[token].state.is_finished():
            return
        if outcome.value is None:
            self._study.tell(token, state=TrialState.FAIL)
        elif outcome.whole:
            self._study.tell(token, outcome.value)
        else:
            if token in self._asked:  # of this attempt
                self._asked[token].report(outcome.value, outcome.step)
            self._study.tell(token, state=TrialState.PRUNED)


def _values(spec: TrainSpec) -> Mapping[str, Any]:
    data = spec.model_dump(mode="json")
    return {key: get(data, key) for key in keys_of(TrainSpec).leaves}
