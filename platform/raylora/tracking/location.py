"""Which tracking store a spec means, and where the artifacts of a local one lie."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from raylora.config.train_spec import TrackingSpec
from raylora.errors import InvalidConfig, Problem

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
SQLITE = "sqlite:///"


def tracking_uri(tracking: TrackingSpec, outputs: str) -> str:
    """Absolute tracking URI; without tracking.uri it is SQLite in the outputs folder.

    A relative SQLite path is taken from the current folder, so resolve it where the user is.
    Raises InvalidConfig for stores that MLflow 3 refuses and for outputs that hold no SQLite file.
    """
    uri = tracking.uri
    if uri is None:
        return _sqlite(_local_folder(outputs) / DATABASE)
    if uri.startswith(SQLITE):
        return _sqlite(Path(uri.removeprefix(SQLITE)))
    scheme = urlsplit(uri).scheme
    if scheme in ("", "file"):
        raise _invalid(
            "tracking.uri",
            f"{uri!r} is a folder, and MLflow 3 keeps no runs in plain folders",
            f"Write {SQLITE}/ABSOLUTE/PATH/{DATABASE}, a server's http(s) address, or null",
        )
    return uri.rstrip("/") if scheme in ("http", "https") else uri


def database_file(uri: str) -> Path | None:
    """The file behind a SQLite URI; None for every other store."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def artifact_root(uri: str) -> Path | None:
    """Folder for the artifacts of a SQLite store; None where a server decides."""
    file = database_file(uri)
    return None if file is None else file.parent / ARTIFACTS


def _local_folder(outputs: str) -> Path:
    parts = urlsplit(outputs)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if "://" in outputs:
        raise _invalid(
            "tracking.uri",
            f"null means SQLite in outputs, and outputs={outputs} is not a local folder",
            "Write the address of an MLflow server",
        )
    return Path(outputs)


def _sqlite(file: Path) -> str:
    return f"{SQLITE}{file.expanduser().absolute()}"


def _invalid(key: str, message: str, remedy: str) -> InvalidConfig:
    return InvalidConfig([Problem(key=key, message=message, remedy=remedy)])
