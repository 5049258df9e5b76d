"""Data sets of the Hugging Face hub: hub:ORG/NAME, hub:ORG/NAME:CONFIG, either with @REVISION."""

from collections.abc import Iterator
from typing import Any, Final

from raylora.config.data_spec import SourceSpec
from raylora.errors import InvalidData
from raylora.jobs.data.records import Found, Place, Record

PREFIX: Final = "hub:"


def records(source: SourceSpec, *, streaming: bool) -> Iterator[Found]:
    """Yield the rows of the source's split, out of a copy on disk or as they come."""
    for number, fields in enumerate(_data_set(source, streaming), 1):
        yield Record(Place(source.source, number), dict(fields))


def fingerprint(source: SourceSpec) -> str:
    """What `datasets` identifies the content by."""
    return str(_data_set(source, streaming=False)._fingerprint)


def _data_set(source: SourceSpec, streaming: bool) -> Any:
    """Raises InvalidData where it cannot be had."""
    # Takes a second to import, and most data is in files.
    import datasets

    name, _, revision = source.source.removeprefix(PREFIX).partition("@")
    name, _, config = name.partition(":")
    library: Any = datasets
    try:
        return library.load_dataset(
            name,
            config or None,
            split=source.split,
            revision=revision or None,
            streaming=streaming,
        )
    except (OSError, ValueError, RuntimeError, library.exceptions.DatasetsError) as error:
        raise InvalidData(
            f"split {source.split!r} cannot be loaded: {_first_line(error)}",
            file=source.source,
            hint="write hub:ORG/NAME or hub:ORG/NAME:CONFIG@REVISION and a split that it has",
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]
