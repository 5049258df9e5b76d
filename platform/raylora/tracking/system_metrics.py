"""CPU, memory, disk, network and GPUs of a node while a run uses it, under MLflow's names."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from raylora.tracking.run import SYSTEM_METRICS

log = logging.getLogger(__name__)

SAMPLE_SECONDS = 5.0
"""Between two samples; MLflow's 10 s leaves a two-minute run with a dozen."""
INTERVAL = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"
"""MLflow's own setting, in seconds."""
Write: TypeAlias = Callable[[Mapping[str, float], int], None]


class SystemMetrics:
    """A thread that samples a node with MLflow's collectors and hands the values on.

    MLflow's own monitor asks its server at each sample and ends where that does not answer. Steps
    are seconds since the run began, so that they go on after a restart, whoever samples.
    """

    def __init__(self, write: Write, began: float, node: str = "") -> None:
        """began: Unix seconds at which the run did. node: the machine's name, or its host name."""
        self._write = write
        self._began = began
        self._prefix = f"{SYSTEM_METRICS}{node or socket.gethostname()}/"
        self._interval = float(os.environ.get(INTERVAL) or SAMPLE_SECONDS)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="system-metrics", daemon=True)

    def start(self) -> None:
        """Begin; importing MLflow's collectors takes the thread about a second."""
        self._thread.start()

    def stop(self) -> None:
        """End; waits for a sample that is being taken."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            collectors = _collectors()
            while not self._over.wait(self._interval):
                self._sample(collectors)
        except Exception as error:
            # A driver's library may fail in any way, and that is no reason to stop training.
            log.warning("system metrics end here: %s", error)

    def _sample(self, collectors: list[Any]) -> None:
        values: dict[str, float] = {}
        for collector in collectors:
            collector.collect_metrics()
            values |= collector.aggregate_metrics()
            collector.clear_metrics()
        named = {self._prefix + key: float(value) for key, value in values.items()}
        self._write(named, round(time.time() - self._began))


def _collectors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
    from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

    collectors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    for vendor in (GPUMonitor, ROCMMonitor):
        try:
            collectors.append(vendor())
            break
        except Exception:  # no such GPU, or no library for it
            continue
    return collectors
