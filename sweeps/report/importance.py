"""How much each searched key matters: fANOVA (Hutter et al., 2014) over the trials of a sweep.

fANOVA fits a random forest to (settings, metric) and asks which share of the forest's variation a
key explains by itself. With the 8 to 20 trials of a sweep it is the sounder one of Optuna's:
PED-ANOVA compares the density of the best tenth with that of all, and a tenth of 16 is two trials.

Values are taken by their place among those tried, so that 1e-5, 1e-4 and 1e-3 are evenly apart and
no scale has to be guessed; every value tried weighs the same.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from raylora.sweeps.report.dimensions import Dimension
from raylora.sweeps.report.equal_steps import EqualSteps

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

LEAST_TRIALS = 4
"""Fewer say nothing about two keys."""
SEED = 0
"""The forest is drawn at random; the same trials get the same figures."""


@dataclass(frozen=True)
class Importance:
    """Shares of a metric's variation between trials."""

    shares: Mapping[str, float] = field(default_factory=dict[str, float])
    """By the label of a dimension, the largest first; empty where nothing can be said."""
    interplay: float = 0.0
    """The share of two keys or more together."""
    note: str = ""
    """Why there are no shares."""


def importance(axes: Sequence[Dimension], compared: EqualSteps) -> Importance:
    """What made the difference at the step at which the trials are compared."""
    values = compared.values
    varied = [axis for axis in axes if len({axis.places[trial] for trial in values}) > 1]
    if len(values) < LEAST_TRIALS:
        return Importance(note=f"{len(values)} trials can be compared, {LEAST_TRIALS} are needed")
    if not varied:
        return Importance(note="no key has more than one value")
    if len(set(values.values())) == 1:
        return Importance(note="all trials have the same result")
    shares = _fanova(varied, values)
    return Importance(shares, max(0.0, 1.0 - sum(shares.values())))


def _fanova(axes: Sequence[Dimension], values: Mapping[str, float]) -> dict[str, float]:
    import optuna
    from optuna.exceptions import ExperimentalWarning
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    # Optuna says on stderr that it has made a study.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    study.add_trials([_trial(axes, trial, value) for trial, value in values.items()])
    with warnings.catch_warnings():
        # normalize has been experimental since Optuna 3.0. Without it the shares add up to 1, and
        # what keys do together cannot be told.
        warnings.simplefilter("ignore", ExperimentalWarning)
        found = get_param_importances(
            study, evaluator=FanovaImportanceEvaluator(seed=SEED), normalize=False
        )
    return {label: float(share) for label, share in found.items()}


def _trial(axes: Sequence[Dimension], trial: str, value: float) -> "FrozenTrial":
    from optuna.trial import create_trial

    return create_trial(
        value=value,
        params={axis.label: _param(axis, trial) for axis in axes},
        distributions={axis.label: _distribution(axis) for axis in axes},
    )


def _param(axis: Dimension, trial: str) -> float | int:
    place = axis.places[trial]
    return float(place) if axis.numeric else place


def _distribution(axis: Dimension) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    count = len(axis.levels)
    if not axis.numeric:
        return CategoricalDistribution(tuple(range(count)))
    # Half a place beyond both ends: the first and the last value are as wide as the others.
    return FloatDistribution(-0.5, count - 0.5)
