"""The line that trains one trial of a sweep by itself."""

import json
import shlex
from collections.abc import Mapping
from typing import Any


def submit_line(config: str, settings: Mapping[str, Any]) -> str:
    """`raylora submit` with the settings as overrides; config: what stands after submit."""
    overrides = [shlex.quote(f"{key}={_value(value)}") for key, value in settings.items()]
    return " ".join(("raylora submit", config, *overrides))


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
