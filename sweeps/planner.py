"""How the trials of a sweep train: which share a base, in how many slots, how many at a time.

Policy only: what the cluster has, and what is known of memory and rows, comes from elsewhere.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from raylora.cluster.capacity import Demand, Node, demand_of, room_for, without
from raylora.config.fused_rules import Sharing, sharing, why_alone
from raylora.config.sweep_spec import Execution, Scheduler, Searcher, SweepSpec
from raylora.config.train_spec import TrainSpec
from raylora.config.workers_spec import WorkersSpec
from raylora.errors import JobFailed

PASS_TOKENS = 1024
"""A larger pass is no faster on a CPU (SmolLM2: 335 tokens/s at 540 tokens, 379 at 1080)."""
FILLING_TOKENS = 512
"""A trial with so many tokens in a pass fills it: another one beside it takes its own time."""
MOST_TRIALS = 8
"""In a slot. On one thread, with 64 tokens each, 1, 2, 4, 8 trials take 1 : 1.45 : 2.51 : 4.05 of
the time: the eighth still costs 0.4 of a trial alone, and beyond nothing was measured."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a worker holds on a CPU."""

    shared: int
    """Process, base and the activations of a pass."""
    trial: int
    """Adapter, gradients and optimizer state of the largest trial."""

    def of(self, trials: int) -> int:
        """With so many trials in it."""
        return self.shared + trials * self.trial


@dataclass(frozen=True)
class Known:
    """What is known before anything is loaded; None is not known."""

    memory: Memory | None = None
    tokens: float | None = None
    """Of one trial in a forward pass."""


@dataclass(frozen=True)
class FusedSlot:
    """A group of workers with one base, and how many trials share it."""

    name: str
    workers: WorkersSpec
    capacity: int


@dataclass(frozen=True)
class Plan:
    """Where trials train."""

    slots: tuple[FusedSlot, ...]
    isolated_at_once: int
    """Trials with workers of their own that train at the same time."""
    at_once: int
    """Trials that train at the same time in all."""
    notices: tuple[str, ...]
    """What of this the user should know, and why."""

    @property
    def groups(self) -> int:
        """Groups of workers that train at the same time."""
        return len(self.slots) + self.isolated_at_once


def plan(
    spec: SweepSpec, trials: Sequence[TrainSpec], nodes: Sequence[Node], known: Known
) -> Plan:
    """Plan a sweep whose first trials are `trials`, on nodes that hold a group of its workers.

    TPE proposes others later; sweep.trials says how many there are in all. Raises JobFailed where
    a population is larger than what trains at once.
    """
    return _Planner(spec, trials, nodes, known).plan()


@dataclass(frozen=True)
class _Layout:
    slots: int
    each: int
    """Trials in a slot at most."""
    isolated: int


class _Planner:
    def __init__(
        self, spec: SweepSpec, trials: Sequence[TrainSpec], nodes: Sequence[Node], known: Known
    ) -> None:
        self._search = spec.sweep
        self._workers = spec.workers
        self._nodes = nodes
        self._tokens = None if spec.workers.gpus_per_worker else known.tokens
        self._memory = None if spec.workers.gpus_per_worker else known.memory
        base = spec.base
        self._alone = [self._why_alone(base, trial) for trial in trials]
        later = self._search.searcher is Searcher.TPE
        self._population = self._search.scheduler is Scheduler.PBT
        self._total = max(len(trials), (self._search.trials or 0) if later else 0)
        self._wanted = min(self._search.at_once or self._total, self._total)
        own = [t.workers for t, why in zip(trials, self._alone, strict=True) if why]
        self._own = max([spec.workers, *own], key=lambda w: (w.least, w.cpus_per_worker))
        unknown = len(trials) < self._total and sharing(base, self._search) is Sharing.SOME
        self._may_be_alone = bool(own) or unknown

    def plan(self) -> Plan:
        layout = self._layout()
        # As many as were planned for, whatever else there would be room for.
        workers = self._workers.model_copy(update={"num_workers": self._workers.least})
        slots = tuple(
            FusedSlot(f"fused-{number}", workers, layout.each)
            for number in range(1, layout.slots + 1)
        )
        at_once = min(self._wanted, layout.slots * layout.each + layout.isolated)
        if self._population and at_once < self._wanted:
            raise JobFailed(
                f"{at_once} of the {self._wanted} trials of a population can train at the same "
                f"time, and all have to: {self._limit(layout)}",
                hint="lower sweep.trials, or use a larger cluster",
            )
        notices = tuple(self._notices(layout, at_once))
        return Plan(slots, layout.isolated, at_once, notices)

    def _why_alone(self, base: TrainSpec, trial: TrainSpec) -> str:
        if self._search.execution is Execution.ISOLATED:
            return "sweep.execution=isolated"
        return why_alone(base, trial)

    @property
    def _sharing(self) -> int:
        """Trials that share, as far as they are known."""
        return self._total - sum(map(bool, self._alone))

    def _layout(self) -> _Layout:
        """As many trials at once as pay and fit; of equals the one with more slots."""
        layouts = [
            found
            for slots in range(self._most_slots(), 0, -1)
            if (found := self._largest(slots)) is not None
        ]
        if layouts:
            return max(layouts, key=lambda found: min(self._wanted, found.slots * found.each))
        if not self._may_be_alone:  # what is known of memory says no: memory itself decides
            return _Layout(1, 1, 0)
        return _Layout(0, 0, max(1, min(self._own_groups(self._nodes), self._wanted)))

    def _most_slots(self) -> int:
        sharing = min(self._wanted, self._sharing)
        if not sharing:
            return 0
        group = self._slot_demand(1, 1)
        groups = room_for(group.per_worker, self._nodes) // group.workers
        if self._may_be_alone:
            share = round(groups * self._sharing / self._total)
            groups = min(groups - 1, max(1, share))
        if self._search.trials_per_slot is not None:
            worth = ceil(sharing / self._search.trials_per_slot)
        else:
            # A slot with one trial gains nothing, unless a second one gains nothing either.
            worth = sharing if self._paying == 1 else max(1, sharing // 2)
        return min(groups, worth)

    @property
    def _paying(self) -> int:
        """Trials in a slot of which the last one still costs less than it would alone."""
        if self._tokens is None:
            return MOST_TRIALS
        if self._tokens >= FILLING_TOKENS:
            return 1
        return min(MOST_TRIALS, ceil(PASS_TOKENS / max(1.0, self._tokens)))

    def _largest(self, slots: int) -> _Layout | None:
        """As many trials in each of so many slots as pay and fit; None where none fits."""
        share = ceil(min(self._wanted, self._sharing) / slots)
        # Where the user says how many train at once, they do; it costs them no more than alone.
        paying = share if self._search.at_once or self._population else self._paying
        for each in range(min(share, self._search.trials_per_slot or paying), 0, -1):
            demand = self._slot_demand(slots, each)
            if room_for(demand.per_worker, self._nodes) < demand.workers:
                continue
            if not self._may_be_alone:
                return _Layout(slots, each, 0)
            if groups := self._own_groups(without(demand, self._nodes)):
                most = self._total - self._sharing or self._wanted
                return _Layout(slots, each, min(groups, most))
        return None

    def _slot_demand(self, slots: int, trials: int) -> Demand:
        group = demand_of(self._workers)
        return Demand(slots * group.workers, self._with_memory(group.per_worker, trials))

    def _own_groups(self, nodes: Sequence[Node]) -> int:
        """Trials with workers of their own that the nodes hold at once."""
        own = demand_of(self._own)
        return room_for(self._with_memory(own.per_worker, 1), nodes) // own.workers

    def _with_memory(self, per_worker: Mapping[str, float], trials: int) -> Mapping[str, float]:
        if self._memory is None or not all("memory" in node.resources for node in self._nodes):
            return per_worker
        return {**per_worker, "memory": self._memory.of(trials)}

    def _notices(self, layout: _Layout, at_once: int) -> Iterator[str]:
        if layout.slots:
            where = "one base" if layout.slots == 1 else f"{layout.slots} bases, each"
            yield f"trials share {where} with up to {layout.each} at a time"
        for why, count in Counter(filter(None, self._alone)).items():
            yield f"{count} of {self._total} trials train isolated: {why}"
        if self._sharing and not layout.slots:
            yield (
                "the cluster holds one group of workers, which a shared base would keep from the "
                "trials that need their own: all train isolated"
            )
        if at_once < self._wanted:
            yield f"{at_once} of {self._wanted} trials train at a time: {self._limit(layout)}"

    def _limit(self, layout: _Layout) -> str:
        if layout.slots and layout.each == self._search.trials_per_slot:
            return f"sweep.trials_per_slot={layout.each}"
        if layout.slots and not self._search.at_once and layout.each == self._paying:
            tokens = "" if self._tokens is None else f" with {self._tokens:.0f} tokens a pass"
            return f"more on one base would gain nothing{tokens}"
        return "memory and CPUs or GPUs hold no more"
