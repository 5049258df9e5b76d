"""Agreement between the workers of the process group; with one worker nothing is sent."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import distributed as dist

from raylora.errors import RayloraError

Value = TypeVar("Value")


def total(values: Sequence[float]) -> list[float]:
    """Sums over all workers, place by place, in double precision. Every worker calls it."""
    return _reduced(values, dist.ReduceOp.SUM)


def most(value: int) -> int:
    """The largest value of any worker. Every worker calls it."""
    return int(_reduced([value], dist.ReduceOp.MAX)[0])


def anyone(flag: bool) -> bool:
    """Whether any worker says so. Every worker calls it."""
    return bool(most(int(flag)))


def by_rank(value: float) -> list[float]:
    """Every worker's value, in the order of ranks. Every worker calls it."""
    return total([value if rank == dist.get_rank() else 0.0 for rank in _ranks()])


def from_first(value: Value) -> Value:
    """What the first worker has. Every worker calls it; the values of the others are dropped."""
    box = [value]
    if len(_ranks()) > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]


def from_all(value: Value) -> list[Value]:
    """What each worker has, in the order of ranks. Every worker calls it."""
    if len(_ranks()) == 1:
        return [value]
    values: list[Value] = [value] * len(_ranks())
    dist.all_gather_object(values, value)
    return values


def agreed(act: Callable[[], Value]) -> Value:
    """What `act` gives here; where one worker's raises a RayloraError, all raise the first such.

    Every worker calls it, and `act` waits for no other worker.
    """
    given: list[Value] = []
    error = None
    try:
        given.append(act())
    except RayloraError as found:
        error = found
    for found in from_all(error):
        if found is not None:
            raise found
    return given[0]


def _ranks() -> range:
    return range(dist.get_world_size())


def _reduced(values: Sequence[float], how: dist.ReduceOp.RedOpType) -> list[float]:
    if len(_ranks()) == 1:
        return list(values)
    # gloo reduces on the CPU, nccl on the GPU.
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor, op=how)
    return tensor.tolist()
