"""The adapter of a run that is not registered, from the run's artifacts."""

import hashlib
from pathlib import Path

from raylora.errors import NotFound
from raylora.tracking.adapters.registry import ARTIFACT
from raylora.tracking.failures import raylora_errors
from raylora.tracking.lookup import experiment_names, find_run
from raylora.tracking.store import connect


def run_folder(uri: str, run_id: str) -> str:
    """Where a cache keeps it: no other store's run has the same folder."""
    key = hashlib.sha256(f"{uri} {run_id}".encode()).hexdigest()[:16]
    return f"runs/{run_id}-{key}"


def download_run_adapter(uri: str, run_id: str, folder: Path) -> Path:
    """Fetch it below `folder`, unchecked; run_id is raylora's or MLflow's.

    Raises NotFound, Unreachable, NotAuthorised.
    """
    client = connect(uri)
    with raylora_errors(uri):
        entity = find_run(client, run_id, experiment_names(client))
        if not client.list_artifacts(entity.info.run_id, ARTIFACT):
            raise NotFound(
                f"run {run_id} has no adapter among its artifacts",
                hint="it is there once the run has registered or logged one",
            )
        return Path(client.download_artifacts(entity.info.run_id, ARTIFACT, str(folder)))
