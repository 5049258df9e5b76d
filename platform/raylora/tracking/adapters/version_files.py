"""The files of versions: listed, read, fetched and compared with what was registered."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from raylora.tracking.adapters.version import Version, directory_digest, same_files
from raylora.tracking.failures import raylora_errors

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

ARTIFACT = "adapter"
"""Artifact folder of a run that its version is made of."""


def sizes(client: "MlflowClient", mlflow_run_id: str) -> dict[str, int]:
    """Bytes by path in the adapter."""
    with raylora_errors(client.tracking_uri):
        return dict(_below(client, mlflow_run_id, ARTIFACT))


def read(client: "MlflowClient", version: Version, file: str) -> str | None:
    """A text among the artifacts of a version's run; None where there is none."""
    run_id, parent = version.mlflow_run_id, file.rpartition("/")[0]
    with raylora_errors(client.tracking_uri), tempfile.TemporaryDirectory() as folder:
        # Asked first: a download that fails may as well mean that the server is away.
        if file not in [item.path for item in client.list_artifacts(run_id, parent or None)]:
            return None
        path = client.download_artifacts(run_id, file, folder)
        return Path(path).read_text(encoding="utf-8")


def download(client: "MlflowClient", version: Version, cache_dir: Path) -> Path:
    """A local copy of the version's files in cache_dir; safe when several processes race.

    The folder is named after the store, the version and its run, so a store that was deleted
    and made anew never finds an old copy. Raises InvalidAdapter where the files are not those
    that were registered.
    """
    identity = (
        f"{client.tracking_uri} {version} {version.mlflow_run_id} {version.created.isoformat()}"
    )
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    final = cache_dir / version.name / f"{version.version}-{key}"
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=".fetch-") as folder:
        fetched = _fetch(client, version, Path(folder))
        same_files(version, directory_digest(fetched))
        # A rename onto a filled folder fails: then another process was first.
        with suppress(OSError):
            fetched.rename(final)
    return final


def check(client: "MlflowClient", version: Version) -> None:
    """Fetch the files anew. Raises InvalidAdapter where they are not those registered."""
    with tempfile.TemporaryDirectory() as folder:
        same_files(version, directory_digest(_fetch(client, version, Path(folder))))


def _below(client: "MlflowClient", mlflow_run_id: str, path: str) -> Iterator[tuple[str, int]]:
    for item in client.list_artifacts(mlflow_run_id, path):
        if item.is_dir:
            yield from _below(client, mlflow_run_id, item.path)
        else:
            yield item.path.removeprefix(f"{ARTIFACT}/"), int(item.file_size or 0)


def _fetch(client: "MlflowClient", version: Version, folder: Path) -> Path:
    with raylora_errors(client.tracking_uri):
        from mlflow.artifacts import download_artifacts

        return Path(
            download_artifacts(
                artifact_uri=version.source,
                dst_path=str(folder),
                tracking_uri=client.tracking_uri,
            )
        )
