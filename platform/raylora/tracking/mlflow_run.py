"""A run in MLflow, where each call is a request that is answered before it returns."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from raylora.tracking.failures import raylora_errors
from raylora.tracking.params import flatten, text
from raylora.tracking.run import CHANGED_TAG, RUN_ID_TAG, RunStatus
from raylora.tracking.spooling.records import Registered, Registration
from raylora.tracking.system_metrics import SystemMetrics

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

BATCH = 1_000
"""MLflow's limit of metrics in one request, which it stores as a whole or not at all."""
DIGEST_LENGTH = 36
"""MLflow's limit for the digest of a dataset; the whole one is in the profile."""


class Point(NamedTuple):
    """One value of a metric."""

    key: str
    value: float
    time_ms: int
    step: int


class MlflowRun:
    """A Run in MLflow. Methods raise Unreachable, NotAuthorised, and what MLflow refuses."""

    def __init__(
        self,
        client: "MlflowClient",
        mlflow_run_id: str,
        run_id: str,
        params: Mapping[str, str],
        last_steps: Mapping[str, int],
        began: float,
    ) -> None:
        """last_steps: of each metric that is stored. began: Unix seconds at which the run did."""
        self.run_id = run_id
        self.mlflow_run_id = mlflow_run_id
        self._client = client
        self._uri = client.tracking_uri
        self._params = dict(params)
        self._last_steps = dict(last_steps)
        self._began = began
        self._system: SystemMetrics | None = None

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        self.send([Point(key, float(value), now, step) for key, value in metrics.items()])

    def send(self, points: Sequence[Point]) -> None:
        """Store points in their order; those at or before the last step of their key are left out.

        Each was stored already: by this process, or by the one before a restart.
        """
        fresh, last = _after(self._last_steps, points)
        for start in range(0, len(fresh), BATCH):
            with raylora_errors(self._uri):
                from mlflow.entities import Metric

                self._client.log_batch(
                    self.mlflow_run_id,
                    metrics=[
                        Metric(p.key, p.value, p.time_ms, p.step)
                        for p in fresh[start : start + BATCH]
                    ],
                )
        self._last_steps = last

    def log_params(self, params: Mapping[str, object]) -> None:
        flat = flatten(params)
        new = {key: value for key, value in flat.items() if key not in self._params}
        changed = {
            CHANGED_TAG + key: value
            for key, value in flat.items()
            if self._params.get(key, value) != value
        }
        with raylora_errors(self._uri):
            from mlflow.entities import Param, RunTag

            self._client.log_batch(
                self.mlflow_run_id,
                params=[Param(key, value) for key, value in new.items()],
                tags=[RunTag(key, value) for key, value in changed.items()],
            )
        self._params |= new

    def set_tags(self, tags: Mapping[str, object]) -> None:
        with raylora_errors(self._uri):
            from mlflow.entities import RunTag

            self._client.log_batch(
                self.mlflow_run_id, tags=[RunTag(key, text(value)) for key, value in tags.items()]
            )

    def log_dict(self, content: Mapping[str, object], artifact_file: str) -> None:
        with raylora_errors(self._uri):
            self._client.log_dict(self.mlflow_run_id, dict(content), artifact_file)

    def log_artifacts(self, directory: Path, artifact_path: str) -> None:
        with raylora_errors(self._uri):
            self._client.log_artifacts(self.mlflow_run_id, str(directory), artifact_path)

    def log_dataset(self, name: str, source: str, digest: str, rows: int, context: str) -> None:
        with raylora_errors(self._uri):
            from mlflow.entities import Dataset, DatasetInput, InputTag

            dataset = Dataset(
                name,
                digest[:DIGEST_LENGTH],
                source_type="local",
                source=json.dumps({"uri": source}),
                profile=json.dumps({"num_rows": rows, "digest": digest}),
            )
            tags = [InputTag("mlflow.data.context", context)]
            self._client.log_inputs(self.mlflow_run_id, [DatasetInput(dataset, tags)])

    def start_system_metrics(self, node: str = "") -> None:
        self._system = SystemMetrics(self.log_metrics, self._began, node)
        self._system.start()

    def stop_system_metrics(self) -> None:
        if self._system is not None:
            self._system.stop()
            self._system = None

    def flush(self) -> None: ...

    def close(self) -> None:
        self.stop_system_metrics()

    def finish(self, status: RunStatus) -> None:
        self.close()
        self.stand(status)

    def stand(self, status: RunStatus, time_ms: int | None = None) -> None:
        """Have the run stand so since then, or now."""
        with raylora_errors(self._uri):
            if status.terminal:
                self._client.set_terminated(self.mlflow_run_id, status.value, time_ms)
            else:
                self._client.update_run(self.mlflow_run_id, status=status.value)

    def register(self, wanted: Registration, directory: Path) -> Registered:
        """Make the directory a version of a name. Raises what refuses it."""
        from raylora.tracking.adapters.registration import make_version

        return make_version(self._client, self, wanted, directory)

    def discard_doubles(self) -> None:
        """Delete the empty runs that requests made which were answered too late."""
        with raylora_errors(self._uri):
            experiment = self._client.get_run(self.mlflow_run_id).info.experiment_id
            query = f"tags.`{RUN_ID_TAG}` = '{self.run_id}'"
            for found in self._client.search_runs([experiment], query):
                if found.info.run_id != self.mlflow_run_id and not found.data.metrics:
                    self._client.delete_run(found.info.run_id)


def _after(
    last_steps: Mapping[str, int], points: Sequence[Point]
) -> tuple[list[Point], dict[str, int]]:
    """The points that go on where their keys are, and where the keys are after them."""
    last = dict(last_steps)
    fresh: list[Point] = []
    for point in points:
        if point.step > last.get(point.key, -1):
            last[point.key] = point.step
            fresh.append(point)
    return fresh, last
