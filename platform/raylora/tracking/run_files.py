"""Files that a run keeps, and how they get back to this machine."""

from pathlib import Path

from raylora.tracking.failures import raylora_errors
from raylora.tracking.lookup import experiment_names, find_run
from raylora.tracking.store import connect

EVALUATION = "evaluation"
"""Artifact folder of an evaluation."""
PREDICTIONS, REPORT, PAGE = "predictions", "evaluation.json", "evaluation.html"
"""What is in it: a folder with a Parquet file for each data set, every figure, the page."""


def predictions_of(dataset: str) -> str:
    """Artifact with the results of a data set's rows."""
    return f"{EVALUATION}/{PREDICTIONS}/{dataset}.parquet"


def fetch_file(uri: str, run_id: str, path: str, folder: Path) -> Path:
    """Bring one artifact of a run into a folder. Raises NotFound, Unreachable, NotAuthorised."""
    client = connect(uri)
    with raylora_errors(uri):
        entity = find_run(client, run_id, experiment_names(client))
        return Path(client.download_artifacts(entity.info.run_id, path, str(folder)))
