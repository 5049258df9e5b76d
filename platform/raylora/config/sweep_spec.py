"""SweepSpec: a TrainSpec, and which other settings of it are tried and compared."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

from pydantic import ConfigDict, Field

from raylora.config.search_space import Domain
from raylora.config.spec import NonEmpty, Spec
from raylora.config.train_spec import TrainSpec

LOSS, VALIDATION_LOSS, SCORE = "loss", "validation_loss", "validation_"
"""Metrics that a trial reports; the last with the name of one of evaluation.metrics behind it."""


class Searcher(StrEnum):
    """Who proposes the next setting."""

    GRID = "grid"
    """Every combination, in order."""
    RANDOM = "random"
    TPE = "tpe"
    """Tree-structured Parzen estimator: learns from the trials before (Bergstra et al., 2011)."""


class Scheduler(StrEnum):
    """Who ends trials early, or changes them. Names are Ray Tune's."""

    NONE = "none"
    ASHA = "asha"
    """Asynchronous successive halving (Li et al., 2018)."""
    HYPERBAND = "hyperband"
    MEDIAN = "median"
    """Ends trials that are worse than the median of the others at the same step."""
    PBT = "pbt"
    """Population based training: the worst go on from the best (Jaderberg et al., 2017)."""


class Execution(StrEnum):
    """Whether trials share a base."""

    AUTO = "auto"
    """Fused are those that can, isolated the others."""
    FUSED = "fused"
    """Many adapters on one frozen base, in one forward and backward pass."""
    ISOLATED = "isolated"
    """Each trial has its own base and workers; any setting, more time and memory."""


class Mode(StrEnum):
    """Whether less or more is better."""

    MIN = "min"
    MAX = "max"

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Optuna's word."""
        return "minimize" if self is Mode.MIN else "maximize"


class FinishSpec(Spec):
    """What becomes of the best trial."""

    # `register` is a method of every class that has an abstract base.
    model_config = ConfigDict(serialize_by_alias=True)

    refit: int | None = Field(default=None, ge=1)
    """Train its settings again, by themselves and for so many steps; null leaves it as it is."""
    register_best: bool = Field(default=True, alias="register")
    """Check its adapter and register it."""
    alias: str | None = None
    """Alias to move to the new version; null leaves aliases alone, but a first version's."""


class SearchSpec(Spec):
    """The search."""

    space: Mapping[NonEmpty, Domain] = {}
    """By key, such as lora.r, or by several with commas that move together."""
    searcher: Searcher = Searcher.RANDOM
    scheduler: Scheduler = Scheduler.ASHA
    metric: NonEmpty = LOSS
    """loss (of training), validation_loss, or validation_METRIC of evaluation.metrics."""
    mode: Mode = Mode.MIN
    trials: int | None = Field(default=8, ge=1)
    """Settings to try; null with a grid is all of them."""
    at_once: int | None = Field(default=None, ge=1)
    """Trials that train at the same time; null is as many as the cluster holds."""
    execution: Execution = Execution.AUTO
    """auto fuses what can share a base, fused refuses the rest, isolated fuses nothing."""
    trials_per_slot: int | None = Field(default=None, ge=1)
    """Fused trials on one base at most; null is as many as pay and memory holds."""
    budget_minutes: float | None = Field(default=None, gt=0)
    """Trials end after this, and no new one begins."""
    report_steps: int = Field(default=5, ge=1)
    """Optimizer steps between looks of the scheduler; pbt looks at checkpoints instead."""
    grace_steps: int = Field(default=10, ge=1)
    """Steps that every trial may take before it can be ended."""
    reduction_factor: float = Field(default=2, gt=1)
    """ASHA and HyperBand keep one trial of so many at each rung."""
    seed: int = Field(default=0, ge=0)
    """Of the searcher; each trial's own is training.seed."""
    on_finish: FinishSpec = FinishSpec()

    @property
    def together(self) -> int:
        """Trials that have to train at the same time."""
        if self.scheduler is Scheduler.PBT:
            return self.trials or 1
        return min(self.at_once or 1, self.trials or self.at_once or 1)


class SweepSpec(TrainSpec):
    """`raylora sweep` runs exactly this."""

    sweep: SearchSpec = SearchSpec()

    @property
    def base(self) -> TrainSpec:
        """The setting that trials change."""
        return TrainSpec.model_validate(self.model_dump(exclude={"sweep"}))
