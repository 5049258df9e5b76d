"""One MLflow run while it is written to: parameters, metrics, artifacts, and how it ends."""

import json
import socket
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from raylora.errors import RayloraError
from raylora.tracking.failures import raylora_errors
from raylora.tracking.metric_writer import MetricWriter, Point
from raylora.tracking.params import flatten, text

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
    from mlflow.tracking import MlflowClient

RUN_ID_TAG = "raylora.run_id"
ADAPTER_TAG = "raylora.adapter"
CHANGED_TAG = "raylora.changed."
"""Before the key of a parameter that had another value when the run was continued."""
SYSTEM_METRICS = "system/"
"""MLflow's prefix."""

FLUSH_SECONDS = 30.0
SAMPLE_SECONDS = 5
"""Between two samples of system metrics; MLflow's 10 s leaves a two-minute run with a dozen."""
DIGEST_LENGTH = 36
"""MLflow's limit for the digest of a dataset; the whole one is in the profile."""


class RunStatus(StrEnum):
    """How a run stands; MLflow's words."""

    SCHEDULED = "SCHEDULED"
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"

    @property
    def terminal(self) -> bool:
        """Whether the run is over."""
        return self in (RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED)


class Run(Protocol):
    """A run that is being written to."""

    @property
    def run_id(self) -> str:
        """The id that raylora gave it."""
        ...

    @property
    def mlflow_run_id(self) -> str:
        """MLflow's id; empty where nothing is tracked."""
        ...

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Queue values for a step; never waits. A step at or before a key's last is dropped."""
        ...

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log nested parameters under dotted keys; a changed one keeps its first value."""
        ...

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags, over earlier ones of the same key."""
        ...

    def log_dict(self, content: Mapping[str, object], artifact_file: str) -> None:
        """Store a mapping as artifact; the name's .json or .yaml decides the format."""
        ...

    def log_artifacts(self, directory: Path, artifact_path: str) -> None:
        """Upload the files of a directory."""
        ...

    def log_dataset(self, name: str, source: str, digest: str, rows: int, context: str) -> None:
        """Record a data set as input; context says what for, such as training."""
        ...

    def start_system_metrics(self, node: str = "") -> None:
        """Sample CPU, memory, disk, network and GPUs; node names the machine (its host name)."""
        ...

    def stop_system_metrics(self) -> None:
        """End the sampling."""
        ...

    def flush(self) -> None:
        """Wait until queued metrics are stored, FLUSH_SECONDS at most; call it at checkpoints."""
        ...

    def close(self) -> None:
        """Flush and let go, leaving the status alone: what a worker does with an attached run."""
        ...

    def finish(self, status: RunStatus) -> None:
        """Close and set the final status. Raises at the end where metric points were lost."""
        ...


class MlflowRun:
    """A Run in MLflow."""

    def __init__(
        self,
        client: "MlflowClient",
        mlflow_run_id: str,
        run_id: str,
        params: Mapping[str, str],
        last_steps: Mapping[str, int],
    ) -> None:
        self.run_id = run_id
        self.mlflow_run_id = mlflow_run_id
        self._client = client
        self._uri = client.tracking_uri
        self._params = dict(params)
        self._writer = MetricWriter(self._send, last_steps)
        self._monitor: SystemMetricsMonitor | None = None

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        self._writer.put(metrics, step)

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
        with raylora_errors(self._uri):
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(
                self.mlflow_run_id,
                sampling_interval=SAMPLE_SECONDS,
                resume_logging=True,
                node_id=node or socket.gethostname(),
                tracking_uri=self._uri,
            )
            self._monitor.start()

    def stop_system_metrics(self) -> None:
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None

    def flush(self) -> None:
        self._writer.flush(FLUSH_SECONDS)

    def close(self) -> None:
        self.stop_system_metrics()
        self._writer.close(FLUSH_SECONDS)

    def finish(self, status: RunStatus) -> None:
        self.close()
        with raylora_errors(self._uri):
            self._client.set_terminated(self.mlflow_run_id, status.value)
        if self._writer.lost:
            raise RayloraError(
                f"{self._writer.lost} metric points of run {self.run_id} were lost: "
                f"{self._writer.error}"
            ) from self._writer.error

    def _send(self, points: Sequence[Point]) -> None:
        with raylora_errors(self._uri):
            from mlflow.entities import Metric

            self._client.log_batch(
                self.mlflow_run_id,
                metrics=[Metric(p.key, p.value, p.timestamp_ms, p.step) for p in points],
            )


class NullRun:
    """A Run that records nothing: workers other than the first, and tests."""

    run_id = ""
    mlflow_run_id = ""

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None: ...
    def log_params(self, params: Mapping[str, object]) -> None: ...
    def set_tags(self, tags: Mapping[str, object]) -> None: ...
    def log_dict(self, content: Mapping[str, object], artifact_file: str) -> None: ...
    def log_artifacts(self, directory: Path, artifact_path: str) -> None: ...
    def log_dataset(
        self, name: str, source: str, digest: str, rows: int, context: str
    ) -> None: ...
    def start_system_metrics(self, node: str = "") -> None: ...
    def stop_system_metrics(self) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...
    def finish(self, status: RunStatus) -> None: ...
