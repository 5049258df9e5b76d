"""Opening a tracking store: the one place that makes an MlflowClient."""

import logging
import os
import sqlite3
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from raylora.tracking.failures import raylora_errors
from raylora.tracking.location import artifact_root, database_file

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

PROBE_SECONDS = 4
"""A dead or black-holed server is noticed in this time, before MLflow's own retries begin."""

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # MLflow's own limits (7 retries, 120 s each) keep a caller of a dying server for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""MLflow reads these from the environment only, some of them while it is imported."""

PATIENT = {
    # What is sent from a spool is sent again until it is taken, and may take its time.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "120",
}
"""For a process that sends spools; a server may need 30 s to answer."""


_MIGRATING = threading.Lock()
"""alembic keeps the migration that runs in globals: two threads would mix up their stores."""


def connect(uri: str, *, patient: bool = False) -> "MlflowClient":
    """A client of the store at an absolute URI; a missing SQLite store is created.

    Raises Unreachable within about PROBE_SECONDS where a server does not answer; a patient client
    does not ask, and waits for its answers: so do the others of its process from then on.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if patient:
        # But what the user has set himself stands.
        own = {name for name in PATIENT if os.environ[name] != SETTINGS[name]}
        os.environ.update({name: PATIENT[name] for name in PATIENT.keys() - own})
    with raylora_errors(uri):
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        file, artifacts = database_file(uri), artifact_root(uri)
        if file is not None and artifacts is not None:
            ensure_database(file, artifacts)
        if not patient and uri.startswith(("http://", "https://")):
            _probe(uri)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def ensure_database(file: Path, artifacts: Path) -> None:
    """Create the SQLite store unless it is there; safe when several processes race.

    The migrations run (about 1.5 s) on a temporary file that then takes the final name, so a store
    that exists is complete. Write-ahead logging lets the driver, a worker and a command share it;
    MLflow itself waits up to 20 s for a lock.
    """
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        if file.exists():
            return
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".mlflow-") as folder:
            fresh = Path(folder) / file.name
            _migrate(fresh, artifacts)
            fresh.rename(file)


def _migrate(file: Path, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with _MIGRATING:
        store = SqlAlchemyStore(f"sqlite:///{file}", str(artifacts))
    store.engine.dispose()
    connection = sqlite3.connect(file)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


def _probe(uri: str) -> None:
    """Any HTTP answer will do: what it may say is up to the requests that follow."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    http_request(
        get_default_host_creds(uri),
        "/health",
        "GET",
        max_retries=0,
        timeout=PROBE_SECONDS,
        raise_on_status=False,
    )
