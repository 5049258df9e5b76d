"""What a stored run tells: summaries, metrics over their steps, data sets."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from raylora.tracking.run import ADAPTER_TAG, RUN_ID_TAG, SYSTEM_METRICS, RunStatus

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.entities import Run as MlflowEntity


@dataclass(frozen=True)
class RunSummary:
    """One line of a list of runs."""

    run_id: str
    mlflow_run_id: str
    name: str
    experiment: str
    status: RunStatus
    started: datetime
    ended: datetime | None
    duration_s: float
    """Until now where the run is not over."""
    metrics: dict[str, float]
    """Last values, without system metrics."""
    adapter: str | None
    """The version that was registered from it, such as name@7."""


@dataclass(frozen=True)
class MetricSummary:
    """A metric over the steps of a run."""

    last: float
    min: float
    max: float
    last_step: int
    points: int


@dataclass(frozen=True)
class DatasetInput:
    """A data set that went into a run."""

    name: str
    context: str
    digest: str
    source: str
    rows: int | None


@dataclass(frozen=True)
class RunDetails:
    """Everything `raylora runs show` prints."""

    summary: RunSummary
    params: dict[str, str]
    metrics: dict[str, MetricSummary]
    system_metrics: dict[str, float]
    tags: dict[str, str]
    datasets: list[DatasetInput]
    artifacts: list[str]


@dataclass(frozen=True)
class Comparison:
    """What differs; lists are in the order of `runs`, with None where a run has no value."""

    runs: list[RunSummary]
    params: dict[str, list[str | None]]
    metrics: dict[str, list[float | None]]


def summary_of(entity: "MlflowEntity", experiments: Mapping[str, str]) -> RunSummary:
    """One line about a run; experiments maps MLflow's ids to names."""
    info, tags = entity.info, entity.data.tags
    status = RunStatus(info.status)
    started = moment(info.start_time or 0)
    ended = moment(info.end_time) if status.terminal and info.end_time else None
    return RunSummary(
        run_id=tags.get(RUN_ID_TAG, info.run_id),
        mlflow_run_id=info.run_id,
        name=info.run_name or "",
        experiment=experiments.get(info.experiment_id, info.experiment_id),
        status=status,
        started=started,
        ended=ended,
        duration_s=((ended or datetime.now(UTC)) - started).total_seconds(),
        metrics=_split(entity.data.metrics, system=False),
        adapter=tags.get(ADAPTER_TAG),
    )


def details_of(
    entity: "MlflowEntity",
    summary: RunSummary,
    histories: Mapping[str, "list[Metric]"],
    artifacts: list[str],
) -> RunDetails:
    """Everything about a run; histories holds the points of each metric in `summary`."""
    return RunDetails(
        summary=summary,
        params=dict(sorted(entity.data.params.items())),
        metrics={key: _over_steps(histories[key]) for key in sorted(histories)},
        system_metrics=_split(entity.data.metrics, system=True),
        tags=dict(sorted(entity.data.tags.items())),
        datasets=list(_datasets(entity)),
        artifacts=artifacts,
    )


def moment(timestamp_ms: int) -> datetime:
    """MLflow's milliseconds as a time in UTC."""
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC)


def _split(metrics: Mapping[str, float], *, system: bool) -> dict[str, float]:
    return {
        key: value
        for key, value in sorted(metrics.items())
        if key.startswith(SYSTEM_METRICS) == system
    }


def _over_steps(points: "list[Metric]") -> MetricSummary:
    last = max(points, key=lambda point: (point.step, point.timestamp))
    values = [point.value for point in points]
    return MetricSummary(last.value, min(values), max(values), last.step, len(points))


def _datasets(entity: "MlflowEntity") -> Iterator[DatasetInput]:
    inputs = entity.inputs.dataset_inputs if entity.inputs else []
    for item in inputs:
        contexts = [tag.value for tag in item.tags if tag.key == "mlflow.data.context"]
        profile = _object(item.dataset.profile)
        yield DatasetInput(
            name=item.dataset.name,
            context=", ".join(contexts),
            digest=profile.get("digest", item.dataset.digest),
            source=_object(item.dataset.source).get("uri", item.dataset.source),
            rows=profile.get("num_rows"),
        )


def _object(stored: str | None) -> dict[str, Any]:
    """Data sets of other programs may carry anything here, or nothing."""
    try:
        content = json.loads(stored or "{}")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
