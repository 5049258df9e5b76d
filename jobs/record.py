"""The MLflow run of a job, from RUNNING to what becomes of the job."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import yaml

import raylora
from raylora.config.evaluate_spec import EvaluateSpec
from raylora.config.spec import Spec
from raylora.config.train_spec import TrainSpec
from raylora.errors import RayloraError
from raylora.jobs.assignment import spec_sha256
from raylora.jobs.data.survey import Surveyed
from raylora.tracking.location import shown
from raylora.tracking.runs import Run, RunStatus, open_run

PACKAGES = ("torch", "transformers", "peft", "deepspeed", "bitsandbytes", "ray", "mlflow")
"""Whose versions are tags of the run."""

PARAMETERS = ("name", "model", "data", "lora", "training", "workers", "evaluation")
"""Parts of the spec that are parameters of the run."""

SPEC = "spec.yaml"
"""The resolved spec among the run's artifacts."""


def open_record(
    spec: TrainSpec, run_id: str, uri: str, tags: Mapping[str, str] | None = None
) -> Run:
    """Open the MLflow run of a spec, or continue it. Raises Unreachable, NotAuthorised."""
    return open_run(
        uri,
        spec.tracking.experiment,
        run_id,
        spec.name,
        params=spec.model_dump(mode="json", include=set(PARAMETERS)),
        tags=origin_tags(spec) | dict(tags or {}),
    )


@contextmanager
def recorded(spec: TrainSpec, run_id: str, uri: str, data: Sequence[Surveyed]) -> Iterator[Run]:
    """Within: the run is RUNNING, and then FINISHED, FAILED or KILLED."""
    with ending(open_record(spec, run_id, uri)) as run:
        run.log_dict(without_passwords(spec), SPEC)
        for part in data:
            run.log_dataset(part.name, part.source, part.digest, part.rows, part.context)
        yield run


@contextmanager
def ending(run: Run) -> Iterator[Run]:
    """At the end the run is FINISHED, FAILED or KILLED."""
    status = RunStatus.FAILED
    try:
        yield run
        status = RunStatus.FINISHED
    except KeyboardInterrupt:
        status = RunStatus.KILLED
        raise
    finally:
        _finish(run, status)


def without_passwords(spec: Spec) -> dict[str, Any]:
    """A spec as plain values, without what stands before the @ of a URL."""
    return yaml.safe_load(shown(yaml.safe_dump(spec.model_dump(mode="json"))))


def _finish(run: Run, status: RunStatus) -> None:
    """What MLflow did not take must not hide how the job ended."""
    try:
        run.finish(status)
    except RayloraError as error:
        sys.stderr.write(f"the MLflow run is incomplete: {error.message}\n")


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
