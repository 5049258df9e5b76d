"""Can this cluster ever hold what a job asks for? Policy only: the numbers come from elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

from raylora.config.fused_rules import Sharing, sharing
from raylora.config.sweep_spec import Scheduler, SearchSpec, SweepSpec
from raylora.config.workers_spec import WorkersSpec
from raylora.errors import InsufficientResources

_UNIT = 10_000
"""Ray counts resources in ten-thousandths; so do we, or 0.1 + 0.2 would not fit into 0.3."""


@dataclass(frozen=True)
class Node:
    """A living node: its address and what it has in all, such as {"CPU": 8, "GPU": 1}."""

    address: str
    resources: Mapping[str, float]


@dataclass(frozen=True)
class Demand:
    """So many workers, each with so much on one node."""

    workers: int
    per_worker: Mapping[str, float]
    lower: str = "workers.num_workers, workers.cpus_per_worker or workers.gpus_per_worker"
    """Keys that make it less."""

    def __str__(self) -> str:
        noun = "worker" if self.workers == 1 else "workers"
        return f"{self.workers} {noun} with {amounts(self.per_worker)} each"


def demand_of(workers: WorkersSpec) -> Demand:
    """Return what a training job's workers ask for."""
    asked = {"CPU": workers.cpus_per_worker, "GPU": workers.gpus_per_worker}
    return Demand(workers.least, {name: size for name, size in asked.items() if size})


def demand_of_sweep(spec: SweepSpec) -> Demand:
    """Return what the trials ask for that are to train at once, fused wherever they may be."""
    search, each = spec.sweep, demand_of(spec.workers)
    wanted = search.together
    shared = sharing(spec.base, search)
    groups = wanted
    if shared is not Sharing.NONE:
        groups = ceil(wanted / (search.trials_per_slot or wanted))
        # Trials of their own train beside those that share.
        groups += shared is Sharing.SOME and groups < wanted
    keys = f"sweep.{_count_key(search)}, {each.lower}" if groups > 1 else each.lower
    return replace(each, workers=groups * each.workers, lower=keys)


def room_for(per_worker: Mapping[str, float], nodes: Sequence[Node]) -> int:
    """Return how many such workers the nodes hold."""
    return sum(_workers_on(node, per_worker) for node in nodes)


def without(demand: Demand, nodes: Sequence[Node]) -> list[Node]:
    """Return what is left of the nodes when they hold a demand that they have room for."""
    left: list[Node] = []
    missing = demand.workers
    for node in nodes:
        here = min(missing, _workers_on(node, demand.per_worker))
        missing -= here
        taken = {name: here * size for name, size in demand.per_worker.items()}
        rest = {name: size - taken.get(name, 0.0) for name, size in node.resources.items()}
        left.append(replace(node, resources=rest))
    return left


def require(demand: Demand, nodes: Sequence[Node]) -> None:
    """Raise InsufficientResources where the cluster can never hold the demand at once.

    What other jobs use at the moment does not count: they end, and Ray queues the workers.
    """
    fitting = room_for(demand.per_worker, nodes)
    if fitting >= demand.workers:
        return
    have = "; ".join(f"{node.address}: {amounts(_compute(node.resources))}" for node in nodes)
    if not nodes:
        verdict = "it has no living node"
    elif fitting == 0:
        verdict = f"no node of it can hold even one ({have})"
    else:
        verdict = f"it can hold {fitting} ({have})"
    raise InsufficientResources(
        f"the job asks for {demand} and the cluster cannot hold them: {verdict}",
        hint=f"lower {demand.lower}, or use a larger cluster (--address)",
    )


def totals(nodes: Sequence[Node]) -> dict[str, float]:
    """Return the sums over all nodes of what programs can ask for."""
    sums: dict[str, float] = {}
    for node in nodes:
        for name, size in _compute(node.resources).items():
            sums[name] = sums.get(name, 0.0) + size
    return sums


def amounts(resources: Mapping[str, float]) -> str:
    """Return resources as people write them: 2 CPU, 1 GPU, 31.5 GB memory."""
    listed = [
        f"{size / 1e9:.1f} GB {name.replace('_', ' ')}" if "memory" in name else f"{size:g} {name}"
        for name, size in sorted(resources.items())
    ]
    return ", ".join(listed) or "nothing"


def _count_key(search: SearchSpec) -> str:
    return "trials" if search.scheduler is Scheduler.PBT else "at_once"


def _workers_on(node: Node, per_worker: Mapping[str, float]) -> int:
    rooms = [
        round(node.resources.get(name, 0.0) * _UNIT) // round(size * _UNIT)
        for name, size in per_worker.items()
    ]
    return min(rooms)


def _compute(resources: Mapping[str, float]) -> dict[str, float]:
    """Leave out Ray's own markers of nodes (node:10.0.0.1) and of accelerator types."""
    return {name: size for name, size in resources.items() if ":" not in name}
