"""Parameters as MLflow keeps them: a flat list of short strings."""

import json
from collections.abc import Mapping
from typing import Any


def flatten(params: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted keys; other values as `text` writes them."""
    flat: dict[str, str] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = text(value)
    return flat


def text(value: object) -> str:
    """Strings as they are, everything else as JSON: true, null, 0.001, ["q_proj"]."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def value_of(stored: str) -> Any:
    """What `text` wrote; a string that reads like JSON comes back as what it reads like."""
    try:
        return json.loads(stored)
    except ValueError:
        return stored
