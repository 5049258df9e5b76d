"""What a trial's training loop reports, and when it asks before it goes on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from raylora.config.sweep_spec import LOSS
from raylora.jobs.run_log import latest
from raylora.jobs.train.observer import StepReport
from raylora.jobs.train.validation import Validation
from raylora.sweeps.orders import Begin


class Log(Protocol):
    """Keeps a trial's numbers: a RunLog, or nothing."""

    def begin(self, step: int) -> None:
        """Training goes on after `step`."""
        ...

    def step(self, report: StepReport) -> None:
        """A logging interval is over."""
        ...

    def validation(self, validation: Validation, best: bool) -> None:
        """Held-out rows were looked at."""
        ...

    def flush(self) -> None:
        """Have everything so far stored soon."""
        ...

    def close(self) -> None:
        """Wait for what is not stored yet."""
        ...


class NoLog:
    """Of workers other than the first."""

    def begin(self, step: int) -> None: ...
    def step(self, report: StepReport) -> None: ...
    def validation(self, validation: Validation, best: bool) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Progress:
    """What a trial asks permission with."""

    step: int
    metrics: Mapping[str, float]


class TrialObserver:
    """Keeps the numbers of a trial, and waits for permission after each report."""

    def __init__(self, begin: Begin, ask: Callable[[Progress], None], log: Log) -> None:
        """`ask` returns when the trial may go on, and raises where it is to end."""
        self._ask_for = ask
        self._log = log
        self._logs = begin.assignment.places.logs
        self._metric = begin.metric
        self._report_steps = begin.report_steps
        self._at_saves = begin.at_saves
        self._after_step = begin.after_step
        self._last_step = begin.assignment.spec.training.max_steps
        self.progress = Progress(0, {})
        """As of now."""
        self._measured = 0
        """Step at which the metric was known last."""

    def resumed(self, step: int) -> None:
        """See Observer."""
        self._log.begin(step)
        report, validation = latest(self._logs, step)
        self._learn(step, {} if report is None else _of_step(report))
        self._learn(step, {} if validation is None else _of_validation(validation))

    def stepped(self, report: StepReport) -> None:
        """See Observer."""
        self._log.step(report)
        self._learn(report.step, _of_step(report))
        if self._metric == LOSS:
            self._known(report.step, report.step % self._report_steps == 0)

    def validated(self, validation: Validation, best: bool) -> None:
        """See Observer."""
        self._log.validation(validation, best)
        self._learn(validation.step, _of_validation(validation))
        if self._metric != LOSS:
            self._known(validation.step, True)

    def warned(self, text: str) -> None:
        """See Observer."""

    def backed_off(self, micro_batch_size: int) -> None:
        """See Observer."""

    def saved(self, step: int, checkpoint: Path) -> None:
        """See Observer."""
        self._log.flush()
        if self._at_saves and self._measured == step:
            self._ask()

    def _known(self, step: int, due: bool) -> None:
        self._measured = step
        if due and not self._at_saves:
            self._ask()

    def _learn(self, step: int, metrics: Mapping[str, float]) -> None:
        self.progress = Progress(step, {**self.progress.metrics, **metrics})

    def _ask(self) -> None:
        """Not at the end: a scheduler would stop what only has to be saved."""
        assert self._last_step is not None, "sweep_rules wants it"
        if self._after_step < self.progress.step < self._last_step:
            self._ask_for(self.progress)


def _of_step(report: StepReport) -> Mapping[str, float]:
    return {"loss": report.loss, "grad_norm": report.grad_norm}


def _of_validation(validation: Validation) -> Mapping[str, float]:
    scores = {f"validation_{name}": value for name, value in validation.scores.items()}
    return {"validation_loss": validation.loss, **scores}
