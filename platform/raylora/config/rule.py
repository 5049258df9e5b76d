"""One combination of settings that is refused."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raylora.config.dotted import get

if TYPE_CHECKING:
    from raylora.config.train_spec import TrainSpec

KEY = re.compile(r"[a-z]+\.[a-z_0-9]+")
"""A dotted key in a sentence."""


@dataclass(frozen=True)
class Rule:
    """What does not go together, and why."""

    name: str
    broken: Callable[["TrainSpec"], bool]
    reason: str
    """Names every key involved in full, the one at fault first."""
    remedy: str
    """What to write instead."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The dotted keys that the reason names, in its order."""
        return tuple(dict.fromkeys(KEY.findall(self.reason)))

    def found(self, spec: "TrainSpec") -> str:
        """Their values, as in data.max_length=512."""
        values = spec.model_dump(mode="json")
        return ", ".join(f"{key}={json.dumps(get(values, key))}" for key in self.keys)
