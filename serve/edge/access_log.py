"""A JSON line for each request: who asked which version, and what came of it; no text, no key."""

import json
import logging
from collections.abc import Callable
from logging.handlers import WatchedFileHandler
from pathlib import Path

from raylora.serve.edge.request_record import RequestRecord

LOGGER = "raylora.access"
MAX_NAME = 128
"""Characters of what a client wrote: a name that long is no model's."""

AccessLog = Callable[[RequestRecord], None]


def access_log(path: str | None) -> AccessLog:
    """Writes to the replica's log, or to a file, which is opened anew when it was rotated."""
    logger = logging.getLogger(LOGGER)
    for old in list(logger.handlers):
        logger.removeHandler(old)
        old.close()
    handler = _handler(path)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return lambda record: logger.info(line(record))


def _handler(path: str | None) -> logging.Handler:
    if path is None:
        return logging.StreamHandler()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # Appends whole lines, so several replicas of a machine may share the file.
    return WatchedFileHandler(path, encoding="utf-8")


def line(record: RequestRecord) -> str:
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
        "first_token_s": _seconds(record.first_token_s),
        "token_s": _seconds(sum(token_s) / len(token_s)) if token_s else None,
        "total_s": _seconds(record.total_s),
    }
    return json.dumps({name: value for name, value in fields.items() if value is not None})


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
