"""The tracking store that a command looks into."""

import shlex
from pathlib import Path

from raylora.config.credentials import shown
from raylora.config.train_spec import TrackingSpec
from raylora.errors import NotFound
from raylora.tracking.location import database_file
from raylora.tracking.location import tracking_uri as uri_of

DEFAULT_OUTPUTS = "outputs"


def store_uri(tracking_uri: str | None, outputs: str) -> str:
    """URI for --tracking-uri and --outputs. Raises NotFound where nothing has been tracked yet."""
    uri = uri_of(TrackingSpec(uri=tracking_uri), outputs)
    file = database_file(uri)
    if file is not None and not file.exists():
        raise NotFound(
            f"nothing has been tracked in {file}",
            hint="name the folder with --outputs DIR or a server with --tracking-uri URI; "
            "`raylora quickstart` makes a first run here",
        )
    return uri


def same_store(tracking_uri: str | None, outputs: str) -> str:
    """The options, with a space before, that make another command look into the same store."""
    if tracking_uri is not None:
        return f" --tracking-uri {shlex.quote(shown(tracking_uri))}"
    return "" if outputs == DEFAULT_OUTPUTS else f" --outputs {shlex.quote(outputs)}"


def sync_line(run_id: str, outputs: str) -> str:
    """The command that sends what waits in a run's folder; the folder knows its store."""
    return f"raylora runs sync {run_id}{same_store(None, outputs)}"


def as_typed(outputs: str) -> str:
    """A settled outputs folder as a command that is typed here names it."""
    return DEFAULT_OUTPUTS if Path(outputs) == Path.cwd() / DEFAULT_OUTPUTS else outputs
