"""What MLflow, requests and SQLAlchemy raise, as raylora's errors."""

from collections.abc import Iterator
from contextlib import contextmanager

from raylora.config.credentials import shown
from raylora.errors import MissingExtra, NotAuthorised, NotFound, RayloraError, Unreachable
from raylora.tracking.location import database_file

LOCAL_STORE_PACKAGES = frozenset({"sqlalchemy", "alembic", "flask"})
"""What full mlflow has and mlflow-skinny lacks."""

NOT_AUTHORISED = frozenset({"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"})
NOT_FOUND = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"})
UNREACHABLE = frozenset(
    {
        "TEMPORARILY_UNAVAILABLE",
        "DEADLINE_EXCEEDED",
        "REQUEST_LIMIT_EXCEEDED",
        "RESOURCE_EXHAUSTED",
        "ENDPOINT_NOT_FOUND",
        # MLflow's REST client raises this for a refused connection and a timeout.
        "INTERNAL_ERROR",
    }
)


@contextmanager
def raylora_errors(uri: str) -> Iterator[None]:
    """Turn a lower library's exception inside the block into the raylora error it means."""
    try:
        yield
    except RayloraError:
        raise
    except Exception as error:
        translated = translate(error, uri)
        if translated is None:
            raise
        raise translated from error


def translate(error: Exception, uri: str) -> RayloraError | None:
    """The raylora error for a lower library's exception; None where it is not one of theirs."""
    if isinstance(error, ModuleNotFoundError):
        missing = (error.name or "").partition(".")[0]
        return (
            MissingExtra("train", f"the tracking store {shown(uri)}")
            if (missing in LOCAL_STORE_PACKAGES)
            else None
        )
    packages = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    if "mlflow" in packages:
        return _of_code(str(getattr(error, "error_code", "")), str(error), uri)
    if packages & {"requests", "urllib3", "sqlalchemy", "sqlite3"}:
        return _unreachable(str(error), uri)
    return None


def _of_code(code: str, detail: str, uri: str) -> RayloraError:
    where = shown(uri)
    if code in NOT_AUTHORISED:
        return NotAuthorised(
            f"the tracking server {where} refuses access: {_brief(detail)}",
            hint="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
            "or MLFLOW_TRACKING_TOKEN; jobs have what their cluster was started with",
        )
    if code in NOT_FOUND:
        return NotFound(f"{where}: {_brief(detail)}")
    if code in UNREACHABLE:
        return _unreachable(detail, uri)
    return RayloraError(f"the tracking store {where} refuses the request: {_brief(detail)}")


def _unreachable(detail: str, uri: str) -> Unreachable:
    if "mlflow db upgrade" in detail:
        return Unreachable(
            f"the tracking store {shown(uri)} was made by another version of MLflow",
            hint=f"back it up, then run: mlflow db upgrade {shown(uri)}",
        )
    local = database_file(uri) is not None
    return Unreachable(
        f"the tracking {'store' if local else 'server'} {shown(uri)} does not answer: "
        f"{_brief(detail)}",
        hint="check that the file can be written and that its disk is not full"
        if local
        else "check the address and that the MLflow server runs",
    )


def _brief(detail: str) -> str:
    """The first line, without the long tail that MLflow and SQLAlchemy append."""
    lines = (line.strip() for line in shown(detail).splitlines())
    line = next(filter(None, lines), "no reason given")
    return line if len(line) <= 300 else line[:300] + "..."
