"""A JSON line for each request: who asked which version, and what came of it; no text, no key."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from pydantic_core import to_json

from raylora.serve.edge.request_record import RequestRecord

log = logging.getLogger(__name__)

MAX_NAME = 128
"""Characters of what a client wrote: a name that long is no model's."""

AccessLog = Callable[[RequestRecord], None]


def access_log(path: str | None) -> AccessLog:
    """Writes to the replica's log, or to a file, which is opened anew when it was rotated."""
    write = _to_stderr if path is None else _File(Path(path)).write
    return lambda record: write(line(record) + b"\n")


def _to_stderr(text: bytes) -> None:
    sys.stderr.write(text.decode())
    sys.stderr.flush()


class _File:
    """Appends whole lines, so several replicas of a machine may share it.

    A line takes 5 us, of Python's logging 15; each is in the file when its request has ended.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = self._opened()

    def write(self, text: bytes) -> None:
        """Append a line. What cannot be written is told, and the answer was given all the same."""
        try:
            if self._stamp() != self._seen:
                before, self._file = self._file, self._opened()
                os.close(before)
            os.write(self._file, text)
        except OSError as error:
            log.error("%s is not written to: %s", self._path, error)

    def _opened(self) -> int:
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self._seen = self._stamp()
        return file

    def _stamp(self) -> tuple[int, int] | None:
        """Which file has the name now."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino


def line(record: RequestRecord) -> bytes:
    """The record as JSON; what is not known is left out."""
    token_s = [row.token_s for row in record.rows.values() if row.token_s is not None]
    fields = {
        "time": record.came.isoformat(timespec="milliseconds"),
        "request_id": record.id,
        "key": None if record.key is None else record.key.id,
        "method": record.method,
        "path": record.path[:MAX_NAME],
        "status": record.status,
        "model": None if record.model is None else record.model[:MAX_NAME],
        "adapter": record.answered_by,
        "stream": record.streamed or None,
        "prompt_tokens": record.prompt_tokens or None,
        "completion_tokens": record.completion_tokens or None,
        "finish_reasons": record.finish_reasons or None,
        "queue_s": _seconds(record.queue_s),
        "first_token_s": _seconds(record.first_token_s),
        "token_s": _seconds(sum(token_s) / len(token_s)) if token_s else None,
        "total_s": _seconds(record.total_s),
    }
    return to_json({name: value for name, value in fields.items() if value is not None})


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
