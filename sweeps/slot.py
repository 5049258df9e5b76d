"""A slot: one base on the workers of one Ray Train run, and the trials that train on it.

Every worker runs the same loop. The first one asks for orders; the others follow it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import distributed as dist
from transformers import PreTrainedModel

from raylora.config.places import cache
from raylora.config.train_spec import TrainSpec
from raylora.errors import RayloraError
from raylora.jobs import probe
from raylora.jobs.data.training_data import TrainingData, training_data
from raylora.jobs.run_log import RunLog
from raylora.jobs.saving import Trained, save_trained
from raylora.jobs.train import collective
from raylora.jobs.train.checkpoint import Checkpoints
from raylora.jobs.train.loop import Setup, train
from raylora.jobs.train.neftune import NoNoise
from raylora.jobs.train.passes import unpacked
from raylora.jobs.train.utilisation import Cost, cost_of, matrix_peak
from raylora.jobs.train.validation import HeldOut, NoValidation, Validator
from raylora.lora.base import compute_dtype, load_base, load_tokenizer
from raylora.lora.devices import pick
from raylora.lora.sources import LocalModel, fetch
from raylora.sweeps.fused.conductor import Conductor, Finished
from raylora.sweeps.fused.player import Player
from raylora.sweeps.fused.shared_passes import TrialPasses
from raylora.sweeps.fused.trial_bank import TrialBank
from raylora.sweeps.orders import Begin, Close, End, GoOn, Orders, TrialReport, TrialState
from raylora.sweeps.trial import NoLog, Progress, TrialObserver


def run_slot(spec: TrainSpec, orders: Orders) -> None:
    """Train trials of `spec` as ordered, until the slot is closed. The process group is there."""
    bench = _Bench.of(spec)
    slot = _Slot(bench, Conductor(bench.bank.passes))
    reports: list[TrialReport] = []
    first = dist.get_rank() == 0
    if first:
        orders.opened()
    while True:
        given = collective.from_first(orders.exchange(reports, slot.idle) if first else ())
        reports = []
        for order in given:
            match order:
                case Begin():
                    slot.begin(order)
                case GoOn(name):
                    reports += slot.go_on(name)
                case End(name):
                    reports += slot.end(name)
                case Close():
                    slot.close()
                    return
        reports += slot.round()


class _Slot:
    """Orders and reports in the conductor's words."""

    def __init__(self, bench: "_Bench", conductor: Conductor) -> None:
        self._bench = bench
        self._conductor = conductor
        self._progress: dict[str, Callable[[], Progress]] = {}
        self._told: set[str] = set()
        """Trials that wait, and whose report was handed over."""

    @property
    def idle(self) -> bool:
        """Whether nothing happens without an order."""
        return not self._conductor.runnable

    def begin(self, order: Begin) -> None:
        self._conductor.join(order.name, lambda player: self._play(order, player))

    def go_on(self, name: str) -> list[TrialReport]:
        self._told.discard(name)
        return self._over(self._conductor.permit(name))

    def end(self, name: str) -> list[TrialReport]:
        if name not in self._conductor.names:  # its last report crossed the order
            return []
        self._told.discard(name)
        return self._over(self._conductor.stop(name))

    def close(self) -> None:
        for name in self._conductor.names:
            self._conductor.stop(name)

    def round(self) -> list[TrialReport]:
        """Reports of the trials that are over now, and of those that wait now."""
        reports = [] if self.idle else self._over(self._conductor.round())
        for name, progress in self._conductor.waiting.items():
            if name not in self._told:
                self._told.add(name)
                reports.append(_report(name, TrialState.WAITING, progress))
        return reports

    def _play(self, order: Begin, player: Player) -> None:
        spec = order.assignment.spec
        with _log_of(order) as log:
            observer = TrialObserver(player, log, order)
            self._progress[order.name] = lambda: observer.progress
            data = self._bench.data(spec)
            backend = self._bench.bank.enter(order.name, spec, TrialPasses(player, order.name))
            try:
                places = order.assignment.places
                checkpoints = Checkpoints(places.checkpoints, spec.training.keep_checkpoints)
                setup = self._bench.setup(spec, backend, data)
                outcome = train(setup, observer, checkpoints)
                recording = self._bench.record(order.name, data)
                if dist.get_rank() == 0:
                    trained = self._bench.trained(order.name, spec, data, recording)
                    save_trained(order.assignment, trained, outcome)
            finally:
                self._bench.bank.leave(order.name)

    def _over(self, finished: Sequence[Finished]) -> list[TrialReport]:
        reports: list[TrialReport] = []
        for trial in finished:
            progress = self._progress.pop(trial.name, lambda: Progress(0, {}))()
            state, why = _end_of(trial)
            reports.append(_report(trial.name, state, progress, why))
        return reports


@dataclass(frozen=True)
class _Bench:
    """What the trials of a slot share."""

    bank: TrialBank
    tokenizer: Any
    local: LocalModel
    implementation: str
    """How the base attends to rows that are not packed."""
    cost: Cost
    peak: float

    @classmethod
    def of(cls, spec: TrainSpec) -> "_Bench":
        """Load the base."""
        local, device = fetch(spec.model, cache()), pick()
        base: PreTrainedModel = load_base(local, spec.model, device)
        config: Any = base.config
        implementation: str = config._attn_implementation
        cost, dtype = cost_of(base), compute_dtype(base)
        bank = TrialBank(base, spec.lora)
        if spec.training.activation_checkpointing:
            base.activation_checkpointing_enable({"use_reentrant": False})
        peak = matrix_peak(device.torch_device, dtype)
        return cls(bank, load_tokenizer(local), local, implementation, cost, peak)

    def data(self, spec: TrainSpec) -> TrainingData:
        rank, world = dist.get_rank(), dist.get_world_size()
        return training_data(spec.data, spec.training, self.tokenizer, Path.cwd(), rank, world)

    def setup(self, spec: TrainSpec, backend: Any, data: TrainingData) -> Setup:
        return Setup(
            backend=backend,
            batches=data.batches,
            training=spec.training,
            validator=_validator(spec, data),
            noise=NoNoise(),
            cost=self.cost,
            peak=self.peak,
            micro_batch_size=spec.training.micro_batch_size,
        )

    def record(self, name: str, data: TrainingData) -> probe.Recording:
        with self.bank.alone(name) as model, unpacked(self.bank.base, self.implementation):
            return probe.record(model, data.sample.input_ids)

    def trained(
        self, name: str, spec: TrainSpec, data: TrainingData, recording: probe.Recording
    ) -> Trained:
        template = self.tokenizer.chat_template if spec.data.chat_template else None
        return Trained(self.bank.model, self.local, data, recording, template, name)


@contextmanager
def _log_of(order: Begin) -> Iterator[RunLog | NoLog]:
    log = RunLog(order.assignment) if dist.get_rank() == 0 else NoLog()
    try:
        yield log
    finally:
        log.close()


def _validator(spec: TrainSpec, data: TrainingData) -> Validator:
    if spec.training.validation_steps is None or data.held_out is None:
        return NoValidation()
    return HeldOut(data.held_out, spec.training, dist.get_rank(), dist.get_world_size())


def _end_of(trial: Finished) -> tuple[TrialState, str]:
    error = trial.ended.error
    if error is None:
        return TrialState.FINISHED, ""
    if trial.was_stopped:
        return TrialState.STOPPED, ""
    return TrialState.FAILED, (
        error.message if isinstance(error, RayloraError) else f"{type(error).__name__}: {error}"
    )


def _report(name: str, state: TrialState, progress: Progress, error: str = "") -> TrialReport:
    return TrialReport(name, state, progress.step, progress.metrics, error)
