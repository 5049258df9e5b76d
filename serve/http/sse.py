"""Server-sent events; light, for the ingress too."""

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

DONE = b"data: [DONE]\n\n"


def sse(data: Mapping[str, Any]) -> bytes:
    """One event."""
    return b"data: " + to_json(data) + b"\n\n"
