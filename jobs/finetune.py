"""The driver of a fine-tuning job: `python -m raylora.jobs.finetune spec.yaml --run-id ID`.

    read the data -> open the MLflow run -> train -> check and evaluate -> register

One MLflow run from the first line to the last, through every restart of the workers. Nothing is
registered unless the adapter on disk is whole and gives the trained model's logits.
"""

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import yaml

import raylora
from raylora.cluster.events import Event, ResultEvent, StageEvent, emit
from raylora.config.compose import read_resolved
from raylora.config.data_spec import Ingest
from raylora.config.places import new_run_id, run_dir
from raylora.config.train_spec import TrainSpec
from raylora.errors import ExitCode, JobFailed, RayloraError
from raylora.jobs.assignment import (
    ADAPTER,
    BASE,
    EVALUATION,
    Assessment,
    Assignment,
    enter,
    spec_sha256,
)
from raylora.jobs.data.survey import Surveyed, survey
from raylora.jobs.trainer import run_workers
from raylora.tracking.location import shown, tracking_uri
from raylora.tracking.promotion import promote
from raylora.tracking.registry import CHAMPION, Registry
from raylora.tracking.runs import Run, RunStatus, open_run

PACKAGES = ("torch", "transformers", "peft", "deepspeed", "bitsandbytes", "ray", "mlflow")
"""Whose versions are tags of the run."""

PARAMETERS = ("name", "model", "data", "lora", "training", "workers", "evaluation")
"""Parts of the spec that are parameters of the run."""

SPEC = "spec.yaml"
"""The resolved spec among the run's artifacts."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; the exit code of its first error. stdout carries the events."""
    parser = argparse.ArgumentParser(prog="raylora.jobs.finetune")
    parser.add_argument("spec", type=Path)
    parser.add_argument("--run-id", default=None)
    arguments = parser.parse_args(argv)
    # Ray would fold lines that look alike, and the events of two steps do.
    os.environ["RAY_DEDUP_LOGS"] = "0"
    try:
        spec = read_resolved(arguments.spec, TrainSpec)
        finetune(spec, arguments.run_id or new_run_id())
    except RayloraError as error:
        sys.stderr.write(f"{type(error).__name__}: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"hint: {error.hint}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("the job was stopped\n")
        return ExitCode.INTERRUPTED
    return ExitCode.OK


def finetune(spec: TrainSpec, run_id: str) -> ResultEvent:
    """Train, check, evaluate and register one adapter. The cluster is the one Ray finds."""
    places = run_dir(Path(spec.outputs).absolute(), spec.tracking.experiment, run_id)
    for folder in (places.artifacts, places.checkpoints, places.logs, places.metadata):
        folder.mkdir(parents=True, exist_ok=True)
    # Mistakes in the data are found before anything is started.
    data = survey(spec.data, Path.cwd())
    _connect()
    uri = tracking_uri(spec.tracking, spec.outputs)
    with _open(spec, run_id, uri, data) as run:
        assignment = Assignment(spec, run_id, run.mlflow_run_id, uri, places)
        _ingest(spec)
        outcome = run_workers(assignment)
        assessment = _assess(assignment)
        result = _register(assignment, run, assessment)
        run.log_metrics({"final_loss": outcome.loss}, outcome.steps)
        run.set_tags({"raylora.kept_step": str(outcome.kept_step)})
    emit(StageEvent("done"))
    emit(result)
    return result


def _ingest(spec: TrainSpec) -> None:
    """Tokenise on all nodes where the spec wants that; workers find it in the cache."""
    if spec.data.ingest is Ingest.RAY_DATA:
        emit(StageEvent("data", spec.data.train_label))
        from raylora.jobs.ingest import ingest

        ingest(spec)


def _connect() -> None:
    import ray

    if not ray.is_initialized():
        ray.init(address="auto", log_to_driver=True)
    # After ray.init, which sets a handler of its own.
    signal.signal(signal.SIGTERM, _stop)


@contextmanager
def _open(spec: TrainSpec, run_id: str, uri: str, data: Sequence[Surveyed]) -> Iterator[Run]:
    """The MLflow run, from RUNNING to what becomes of the job."""
    run = open_run(
        uri,
        spec.tracking.experiment,
        run_id,
        spec.name,
        params=spec.model_dump(mode="json", include=set(PARAMETERS)),
        tags=_tags(spec),
    )
    status = RunStatus.FAILED
    try:
        run.log_dict(_without_passwords(spec), SPEC)
        for part in data:
            run.log_dataset(part.name, part.source, part.digest, part.rows, part.context)
        yield run
        status = RunStatus.FINISHED
    except KeyboardInterrupt:
        status = RunStatus.KILLED
        raise
    finally:
        _finish(run, status)


def _without_passwords(spec: TrainSpec) -> dict[str, Any]:
    return yaml.safe_load(shown(yaml.safe_dump(spec.model_dump(mode="json"))))


def _finish(run: Run, status: RunStatus) -> None:
    """What MLflow did not take must not hide how the job ended."""
    try:
        run.finish(status)
    except RayloraError as error:
        sys.stderr.write(f"the MLflow run is incomplete: {error.message}\n")


def _tags(spec: TrainSpec) -> dict[str, str]:
    """Where the run comes from."""
    import ray

    tags = {
        "raylora.ray_job_id": ray.get_runtime_context().get_job_id(),
        "raylora.base": spec.model.id,
        "raylora.spec_sha256": spec_sha256(spec),
        "raylora.version": raylora.__version__,
    }
    return tags | {f"raylora.{package}": version(package) for package in PACKAGES}


def _assess(assignment: Assignment) -> Assessment:
    """Run the checks as a task on one node, with the CPUs that the workers of one node had."""
    import ray

    workers = assignment.spec.workers
    largest = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
    task = ray.remote(
        num_cpus=min(workers.most * workers.cpus_per_worker, largest),
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


def _register(assignment: Assignment, run: Run, assessment: Assessment) -> ResultEvent:
    """Make the adapter a version of its name; the first of a name becomes its champion."""
    emit(StageEvent("register", assignment.spec.adapter_name))
    places = assignment.places
    metrics = _held_out(assessment)
    run.log_metrics(metrics)
    run.set_tags({"raylora.base_revision": assessment.base_revision})
    run.log_artifacts(places.metadata, "metadata")
    if metrics:
        run.log_artifacts(places.artifacts / EVALUATION, EVALUATION)
    registry = Registry(assignment.tracking_uri)
    adapter = registry.register(
        assignment.spec.adapter_name,
        run,
        places.adapter,
        tags=_lineage(assignment, assessment) | {k: f"{v:.6g}" for k, v in metrics.items()},
    )
    promote(registry, str(adapter), CHAMPION, only_if_unset=True)
    aliases = registry.aliases(adapter.name)
    return ResultEvent(
        run_id=assignment.run_id,
        mlflow_run_id=assignment.mlflow_run_id,
        adapter=str(adapter),
        aliases=[alias for alias, number in aliases.items() if number == adapter.version],
        adapter_dir=str(places.adapter),
    )


def _held_out(assessment: Assessment) -> dict[str, float]:
    """heldout_exact_match of the adapter, heldout_base_exact_match of its base, and so on."""
    prefixes = {ADAPTER: "heldout_", BASE: "heldout_base_"}
    return {
        prefixes[subject] + metric: value
        for subject, metrics in assessment.scores.items()
        for metric, value in metrics.items()
    }


def _lineage(assignment: Assignment, assessment: Assessment) -> dict[str, str]:
    spec = assignment.spec
    return {
        "raylora.base": spec.model.id,
        "raylora.base_name": spec.model.name,
        "raylora.base_revision": assessment.base_revision,
        "raylora.quantization": spec.model.quantization.value,
        "raylora.data": spec.data.train_label,
        "raylora.data_sha256": assessment.data_sha256,
        "raylora.spec_sha256": spec_sha256(assignment.spec),
        "raylora.version": raylora.__version__,
        "raylora.adapter_sha256": assessment.adapter_sha256,
        "raylora.rank": str(assessment.r),
    }


def _stop(signum: int, frame: object) -> NoReturn:
    """A stopped job gets SIGTERM. While Ray waits it lets no other exception than this through."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
