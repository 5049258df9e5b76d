"""Can this cluster ever hold what a job asks for? Policy only: the numbers come from elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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

    def __str__(self) -> str:
        noun = "worker" if self.workers == 1 else "workers"
        return f"{self.workers} {noun} with {amounts(self.per_worker)} each"


def demand_of(workers: WorkersSpec) -> Demand:
    """Return what a training job's workers ask for."""
    asked = {"CPU": workers.cpus_per_worker, "GPU": workers.gpus_per_worker}
    return Demand(workers.least, {name: size for name, size in asked.items() if size})


def require(demand: Demand, nodes: Sequence[Node]) -> None:
    """Raise InsufficientResources where the cluster can never hold the demand at once.

    What other jobs use at the moment does not count: they end, and Ray queues the workers.
    """
    fitting = sum(_workers_on(node, demand.per_worker) for node in nodes)
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
        hint="lower workers.num_workers, workers.cpus_per_worker or workers.gpus_per_worker, "
        "or use a larger cluster (--address)",
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


def _workers_on(node: Node, per_worker: Mapping[str, float]) -> int:
    rooms = [
        round(node.resources.get(name, 0.0) * _UNIT) // round(size * _UNIT)
        for name, size in per_worker.items()
    ]
    return min(rooms)


def _compute(resources: Mapping[str, float]) -> dict[str, float]:
    """Leave out Ray's own markers of nodes (node:10.0.0.1) and of accelerator types."""
    return {name: size for name, size in resources.items() if ":" not in name}
