"""Runs in the tracking store: open or continue one, list, look into and compare them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from raylora.config.credentials import shown
from raylora.errors import NotFound, RayloraError, Unreachable
from raylora.tracking.failures import raylora_errors
from raylora.tracking.location import artifact_root
from raylora.tracking.lookup import every_run, experiment_names, find_run
from raylora.tracking.mlflow_run import MlflowRun
from raylora.tracking.nearest import not_found
from raylora.tracking.run import RUN_ID_TAG, NullRun, Run, RunStatus
from raylora.tracking.run_facts import Comparison, RunDetails, RunSummary, details_of, summary_of
from raylora.tracking.store import connect
from raylora.tracking.sweep_tags import PARENT

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowEntity
    from mlflow.tracking import MlflowClient

__all__ = [
    "NullRun",
    "Run",
    "RunStatus",
    "attach",
    "compare_runs",
    "get_run",
    "kill_run",
    "list_runs",
    "open_run",
]

Value = TypeVar("Value")

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Without it MLflow's pages take an experiment for prompts and traces."""


def open_run(
    uri: str,
    experiment: str,
    run_id: str,
    name: str,
    *,
    params: Mapping[str, object],
    tags: Mapping[str, str],
) -> Run:
    """Start the MLflow run of a raylora run, or continue it where it exists.

    Each call is a request; `spooled.start` gives a run that does without the server. The
    experiment is made if missing; a continued run is RUNNING again and keeps its parameters.
    Raises Unreachable, NotAuthorised.
    """
    run = find_or_make(connect(uri), experiment, run_id, name)
    run.stand(RunStatus.RUNNING)
    run.log_params(params)
    run.set_tags(tags)
    return run


def find_or_make(
    client: "MlflowClient",
    experiment: str,
    run_id: str,
    name: str,
    *,
    began_ms: int | None = None,
    parent: str = "",
) -> MlflowRun:
    """The MLflow run of a raylora run, made where there is none.

    parent: raylora's id of the run that MLflow shows it below, in the same experiment. Of several,
    which a request that was answered too late may have made, it is always the oldest.
    """
    with raylora_errors(client.tracking_uri):
        experiment_id = _experiment(client, experiment)
        entity = _of_run_id(client, experiment_id, run_id)
        if entity is None:
            tags = {RUN_ID_TAG: run_id}
            if parent:
                tags[PARENT] = _parent(client, experiment_id, parent)
            entity = client.create_run(experiment_id, began_ms, tags, run_name=name)
    return _writable(client, entity)


def attach(uri: str, mlflow_run_id: str) -> Run:
    """Write to a run that another process opened. Raises NotFound, Unreachable, NotAuthorised."""
    return find_stored(connect(uri), mlflow_run_id)


def find_stored(client: "MlflowClient", mlflow_run_id: str) -> MlflowRun:
    """The same with a client. A run that was deleted is not found."""
    with raylora_errors(client.tracking_uri):
        entity = client.get_run(mlflow_run_id)
    if entity.info.lifecycle_stage != "active":
        raise NotFound(f"run {mlflow_run_id} was deleted")
    return _writable(client, entity)


def kill_run(uri: str, run_id: str) -> None:
    """Set a run that is RUNNING to KILLED, and those below it. One that is unknown stays so."""
    client = connect(uri)
    with raylora_errors(uri):
        names = experiment_names(client)
        found = list(every_run(client, names, f"tags.`{RUN_ID_TAG}` = '{run_id}'"))
        for entity in tuple(found):
            found += every_run(client, names, f"tags.`{PARENT}` = '{entity.info.run_id}'")
        for entity in found:
            if entity.info.status == RunStatus.RUNNING:
                client.set_terminated(entity.info.run_id, RunStatus.KILLED.value)


def list_runs(uri: str, *, experiment: str | None = None, limit: int) -> list[RunSummary]:
    """Runs of raylora, newest first, of one experiment or of all."""
    client = connect(uri)
    with raylora_errors(uri):
        names = experiment_names(client)
        wanted = [key for key, name in names.items() if experiment in (None, name)]
        if experiment is not None and not wanted:
            raise not_found("experiment", experiment, names.values())
        found = client.search_runs(
            wanted,
            f"tags.`{RUN_ID_TAG}` LIKE '%'",
            max_results=limit,
            order_by=["attributes.start_time DESC"],
        )
        return [summary_of(entity, names) for entity in found]


def get_run(uri: str, run_id: str) -> RunDetails:
    """One run by raylora's id or MLflow's. Raises NotFound with the nearest ids."""
    client = connect(uri)
    with raylora_errors(uri):
        names = experiment_names(client)
        entity = find_run(client, run_id, names)
        summary = summary_of(entity, names)
        histories = {
            key: list(client.get_metric_history(entity.info.run_id, key))
            for key in summary.metrics
        }
        return details_of(entity, summary, histories, list(_artifacts(client, entity.info.run_id)))


def compare_runs(uri: str, run_ids: Sequence[str]) -> Comparison:
    """Parameters and last metric values that differ between runs, a missing one included."""
    client = connect(uri)
    with raylora_errors(uri):
        names = experiment_names(client)
        entities = [find_run(client, run_id, names) for run_id in run_ids]
    summaries = [summary_of(entity, names) for entity in entities]
    return Comparison(
        runs=summaries,
        params=_differing([dict(entity.data.params) for entity in entities]),
        metrics=_differing([summary.metrics for summary in summaries]),
    )


def _experiment(client: "MlflowClient", name: str) -> str:
    """Id of the experiment, made if missing; a local store keeps its files beside the database."""
    found = client.get_experiment_by_name(name)
    if found is None:
        root = artifact_root(client.tracking_uri)
        try:
            return client.create_experiment(name, str(root / name) if root else None, KIND)
        except Exception:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise RayloraError(
            f"the experiment {name!r} was deleted in {shown(client.tracking_uri)}",
            hint="restore it there, or set tracking.experiment to another name",
        )
    return found.experiment_id


def _of_run_id(client: "MlflowClient", experiment_id: str, run_id: str) -> "MlflowEntity | None":
    query = f"tags.`{RUN_ID_TAG}` = '{run_id}'"
    order = ["attributes.start_time ASC", "attributes.run_id ASC"]
    found = client.search_runs([experiment_id], query, max_results=1, order_by=order)
    return found[0] if found else None


def _parent(client: "MlflowClient", experiment_id: str, run_id: str) -> str:
    found = _of_run_id(client, experiment_id, run_id)
    if found is None:
        raise Unreachable(f"the run above, {run_id}, is not stored yet")
    return found.info.run_id


def _writable(client: "MlflowClient", entity: "MlflowEntity") -> MlflowRun:
    """Continue where the stored run is: parameters are there, steps have been logged."""
    return MlflowRun(
        client,
        mlflow_run_id=entity.info.run_id,
        run_id=entity.data.tags.get(RUN_ID_TAG, entity.info.run_id),
        params=entity.data.params,
        last_steps={metric.key: metric.step for metric in entity.data.to_proto().metrics},
        began=entity.info.start_time / 1000,
    )


def _artifacts(
    client: "MlflowClient", mlflow_run_id: str, path: str | None = None
) -> Iterator[str]:
    for item in client.list_artifacts(mlflow_run_id, path):
        if item.is_dir:
            yield from _artifacts(client, mlflow_run_id, item.path)
        else:
            yield item.path


def _differing(
    columns: Sequence[Mapping[str, Value]],
) -> dict[str, list[Value | None]]:
    keys = sorted({key for column in columns for key in column})
    rows = {key: [column.get(key) for column in columns] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}
