"""Hands each trial that begins its slot: one that is shared, or one of its own."""

from collections.abc import Mapping
from typing import NamedTuple

from raylora.config.fused_rules import why_alone
from raylora.config.train_spec import TrainSpec
from raylora.errors import JobFailed
from raylora.sweeps.planner import Plan


class _Load(NamedTuple):
    """What is in a slot; the next trial joins the least."""

    trials: int
    ranks: int
    """A pass takes the longer, the more of them it has."""


class Slots:
    """Who is where. A slot of a trial's own is named after it."""

    def __init__(self, plan: Plan, base: TrainSpec) -> None:
        """`base` is the sweep's: what trials share."""
        self._base = base
        self._room = {slot.name: slot.capacity for slot in plan.slots}
        self._isolated_at_once = plan.isolated_at_once
        self._slot_of: dict[str, str] = {}
        self._ranks: dict[str, int] = {}
        self._last = ""
        """The shared slot that took a trial last."""
        self._lost = ""
        """Why a shared slot was lost."""

    def slot_of(self, name: str, spec: TrainSpec) -> str:
        """Where a trial trains until it has left: with the least load, or in a slot of its own.

        Raises JobFailed where there is none.
        """
        if name not in self._slot_of:
            self._slot_of[name] = self._choose(name, spec)
            self._ranks[name] = spec.lora.r
        return self._slot_of[name]

    def left(self, name: str) -> None:
        """A trial is over."""
        self._slot_of.pop(name, None)
        self._ranks.pop(name, None)

    def lost(self, slot: str, why: str) -> None:
        """A shared slot takes no trials any more."""
        self._room.pop(slot, None)
        self._lost = why

    def refusal(self, spec: TrainSpec) -> str:
        """Why no slot takes such a trial; empty where one does."""
        if self._isolated_at_once:
            return ""
        why = why_alone(self._base, spec)
        return why or ("" if self._room else self._lost)

    def _choose(self, name: str, spec: TrainSpec) -> str:
        if refusal := self.refusal(spec):
            raise JobFailed(
                f"no slot takes trial {name}: {refusal}",
                hint="what trains beside shared slots is planned when a sweep starts: start one "
                "with such a trial, or with sweep.execution=isolated",
            )
        loads = self._loads()
        with_room = [slot for slot, room in self._room.items() if loads[slot].trials < room]
        # One that leaves may be counted until its successor has begun.
        open_to_it = with_room if self._isolated_at_once else list(self._room)
        if open_to_it and not why_alone(self._base, spec):
            # Of equals the last one: a, b, b, a. In turns, a grid of two or four rates would have
            # its best ones in one slot, and a scheduler that hears of that last stops fewer.
            self._last = min(open_to_it, key=lambda slot: (loads[slot], slot != self._last))
            return self._last
        return name

    def _loads(self) -> Mapping[str, _Load]:
        own = {
            slot: [self._ranks[name] for name, place in self._slot_of.items() if place == slot]
            for slot in self._room
        }
        return {slot: _Load(len(ranks), sum(ranks)) for slot, ranks in own.items()}
