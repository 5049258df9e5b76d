"""The MLflow run of a job, from RUNNING to what becomes of the job."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

import raylora
from raylora.cluster.events import NoticeEvent, emit
from raylora.config.credentials import shown
from raylora.config.evaluate_spec import EvaluateSpec
from raylora.config.places import run_dir
from raylora.config.spec import Spec
from raylora.config.train_spec import TrainSpec
from raylora.errors import RayloraError
from raylora.jobs.assignment import spec_sha256
from raylora.jobs.data.survey import Surveyed
from raylora.tracking.run import Run, RunStatus
from raylora.tracking.spooling.tracked import TrackedRun, start

PACKAGES = ("torch", "transformers", "peft", "deepspeed", "bitsandbytes", "ray", "mlflow")
"""Whose versions are tags of the run."""

PARAMETERS = (
    *("name", "model", "data", "lora", "training", "workers", "evaluation"),
    *("subjects", "datasets", "module"),
)
"""Parts of a spec that are parameters of its run."""

GIT_COMMIT = "mlflow.source.git.commit"
"""MLflow's tag, which its pages show."""

SPEC = "spec.yaml"
"""The resolved spec among the run's artifacts."""


def open_record(
    spec: TrainSpec | EvaluateSpec,
    run_id: str,
    uri: str,
    tags: Mapping[str, str] | None = None,
    *,
    parent: str = "",
) -> TrackedRun:
    """Open the MLflow run of a spec, or continue it; the server may be away.

    parent: the run that it is shown below.
    """
    places = run_dir(Path(spec.outputs).absolute(), spec.tracking.experiment, run_id)
    return start(
        uri,
        spec.tracking.experiment,
        run_id,
        spec.name,
        places.tracking,
        params=spec.model_dump(mode="json", include=set(PARAMETERS)),
        tags=origin_tags(spec) | dict(tags or {}),
        parent=parent,
    )


@contextmanager
def recorded(
    spec: TrainSpec | EvaluateSpec,
    run_id: str,
    uri: str,
    data: Sequence[Surveyed] = (),
    commit: str = "",
    tags: Mapping[str, str] | None = None,
) -> Iterator[TrackedRun]:
    """Within: the run is RUNNING, and then FINISHED, FAILED or KILLED.

    Raises NotAuthorised. A server that is away is waited for at the end, and no longer than
    tracking.settle_seconds.
    """
    committed = {GIT_COMMIT: commit} if commit else {}
    run = open_record(spec, run_id, uri, committed | dict(tags or {}))
    away = run.wait_until_known()
    if away is not None:
        emit(NoticeEvent(f"{away.message}; what is logged waits on disk until it is back"))
    try:
        with _ending(run):
            run.log_dict(without_passwords(spec), SPEC)
            for part in data:
                run.log_dataset(part.name, part.source, part.digest, part.rows, part.context)
            yield run
    finally:
        if missing := run.settle(spec.tracking.settle_seconds):
            emit(NoticeEvent(f"{missing}; `raylora runs sync {run_id}` sends what waits"))


def without_passwords(spec: Spec) -> dict[str, Any]:
    """A spec as plain values, without what stands before the @ of a URL."""
    return yaml.safe_load(shown(yaml.safe_dump(spec.model_dump(mode="json"))))


def origin_tags(spec: TrainSpec | EvaluateSpec) -> dict[str, str]:
    """Where a run comes from."""
    import ray

    tags = {
        "raylora.ray_job_id": ray.get_runtime_context().get_job_id(),
        "raylora.base": spec.model.id,
        "raylora.spec_sha256": spec_sha256(spec),
        "raylora.version": raylora.__version__,
    }
    return tags | {f"raylora.{package}": version(package) for package in PACKAGES}


@contextmanager
def _ending(run: Run) -> Iterator[None]:
    """At the end the run is FINISHED, FAILED or KILLED."""
    status = RunStatus.FAILED
    try:
        yield
        status = RunStatus.FINISHED
    except KeyboardInterrupt:
        status = RunStatus.KILLED
        raise
    finally:
        _finish(run, status)


def _finish(run: Run, status: RunStatus) -> None:
    """What MLflow did not take must not hide how the job ended."""
    try:
        run.finish(status)
    except RayloraError as error:
        sys.stderr.write(f"the MLflow run is incomplete: {error.message}\n")
