"""Starts the workers of a fine-tuning job: one TorchTrainer, with a finite limit on everything.

Light on purpose: the driver imports this, and torch and transformers are for the workers.
"""

import os
import secrets
from collections.abc import Callable
from typing import Any, TypeAlias

from raylora.config.workers_spec import WorkersSpec
from raylora.errors import InsufficientResources, JobFailed, RayloraError
from raylora.jobs.assignment import Assignment, enter
from raylora.jobs.train.outcome import Outcome
from raylora.jobs.waiting import Amounts, say_what_is_missing

ENVIRONMENT = {
    # Seconds that Ray waits for resources that others hold, START_ATTEMPTS times.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
    # Workers stay in the job's working directory, to which the spec's files are relative.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Ray Train's own print says everything twice.
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # Controllers in the driver would each set logging up anew, and two at once hang in it: one
    # holds logging's lock and wants a handler's, the other the other way round.
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
}
"""Ray Train reads these in the driver; its other limits come with the job."""
Work: TypeAlias = Callable[[dict[str, Any]], Any]
"""What each worker does."""
START_ATTEMPTS = 60
"""A job waits an hour for a busy cluster; one that is too small is refused at once."""


def run_workers(assignment: Assignment, work: Work | None = None, **given: Any) -> Any:
    """Train to the end, through up to workers.max_failures losses of workers; the Outcome.

    Other `work` than fine-tuning may be given, with what it needs besides "assignment". Raises
    what the workers found wrong, or JobFailed when they were lost too often.
    """
    os.environ.update(ENVIRONMENT)
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError

    from raylora.jobs.lean_trainer import LeanTorchTrainer
    from raylora.jobs.memory_watch import MemoryWatch

    workers = assignment.spec.workers
    wanted = {name: each * workers.least for name, each in _resources(workers).items()}
    _refuse_impossible(workers, wanted, ray.cluster_resources())
    say_what_is_missing(wanted, ray.available_resources)
    trainer = LeanTorchTrainer(
        work or _finetune,
        train_loop_config={"assignment": assignment, **given},
        scaling_config=ScalingConfig(
            num_workers=workers.num_workers,
            use_gpu=workers.gpus_per_worker > 0,
            resources_per_worker=_resources(workers),
        ),
        run_config=RunConfig(
            # A name of its own for each attempt: Ray continues a name it finds on disk from a
            # snapshot that it does not write atomically. Our checkpoints do not depend on it.
            name=f"{assignment.run_id}-{secrets.token_hex(3)}",
            storage_path=str(assignment.places.metadata / "ray"),
            failure_config=FailureConfig(
                max_failures=workers.max_failures,
                controller_failure_limit=START_ATTEMPTS,
                max_preemption_failures=START_ATTEMPTS,
            ),
            callbacks=[MemoryWatch(assignment.places)],
        ),
    )
    try:
        result: Any = trainer.fit().return_value
    except TrainingFailedError as error:
        raise JobFailed(
            f"training was given up after {workers.max_failures + 1} failures of its workers: "
            f"{_last_line(error)}",
            hint="the job's log has each failure; raise workers.max_failures for an unsteady "
            "cluster, give workers more memory where it ran out again and again",
        ) from error
    if isinstance(result, RayloraError):
        raise result
    return result


def _finetune(config: dict[str, Any]) -> Outcome | RayloraError:
    assignment: Assignment = config["assignment"]
    enter(assignment.spec)
    from raylora.jobs.worker import train_worker

    return train_worker(assignment)


def _refuse_impossible(workers: WorkersSpec, wanted: Amounts, total: Amounts) -> None:
    for resource, asked in wanted.items():
        if asked > total.get(resource, 0):
            raise InsufficientResources(
                f"{workers.least} workers need {asked:g} {resource}, "
                f"the cluster has {total.get(resource, 0):g}",
                hint="lower workers.num_workers or what each takes",
            )


def _resources(workers: WorkersSpec) -> dict[str, float]:
    resources = {"CPU": workers.cpus_per_worker}
    if workers.gpus_per_worker:
        resources["GPU"] = workers.gpus_per_worker
    return resources


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
