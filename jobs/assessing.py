"""Has a finished adapter checked and evaluated on some node, apart from those that trained it."""

from collections.abc import Iterator
from typing import Any

from raylora.cluster.events import Event, emit
from raylora.errors import JobFailed, RayloraError
from raylora.jobs.assignment import Assessment, Assignment, enter


def assess_on_cluster(assignment: Assignment, groups: int = 1) -> Assessment:
    """Run the checks as a task on one node, with the CPUs that the workers of one node had.

    groups: so many runs trained beside each other, whose CPUs are all free now. Raises
    InvalidAdapter, InvalidData, JobFailed.
    """
    import ray

    workers = assignment.spec.workers
    largest = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
    task = ray.remote(
        num_cpus=min(groups * workers.most * workers.cpus_per_worker, largest),
        num_gpus=workers.gpus_per_worker,
        num_returns="streaming",
    )(_assess_on_node)
    stream: Any = task.remote(assignment)
    for reference in stream:
        said: Event | Assessment | RayloraError = ray.get(reference)
        if isinstance(said, Assessment):
            return said
        if isinstance(said, RayloraError):
            raise said
        emit(said)
    raise JobFailed("the assessment of the adapter ended without a result")


def _assess_on_node(assignment: Assignment) -> Iterator[Event | Assessment | RayloraError]:
    enter(assignment.spec)
    from raylora.jobs.assess import assess

    yield from assess(assignment)
