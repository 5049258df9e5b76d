"""Which of two versions answers a name: a share of its requests goes to the canary.

Pure policy, one object a replica and a route; nothing here loads or generates.
"""

import hashlib
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raylora.config.serve_spec import RouteSpec


@dataclass(frozen=True)
class Choice:
    """Who answers a request, and who answers it once more for comparison."""

    model: str
    shadow: str | None = None


class Route:
    """The requests for one bare name."""

    def __init__(
        self, name: str, spec: RouteSpec, draw: Callable[[], float] = random.random
    ) -> None:
        """`draw` is uniform in [0, 1), for requests without a user."""
        self.name = name
        self.spec = spec
        self.stable = f"{name}@{spec.stable}"
        self.canary = f"{name}@{spec.canary}"
        self._draw = draw
        self._failures: dict[str, deque[bool]] = {}
        self._counts: Counter[str] = Counter()
        self.rolled_back: set[str] = set()
        """Versions that failed too often; the canary's alias may have moved on since."""

    def choose(self, user: str | None, canary_version: str | None) -> Choice:
        """For one request; canary_version is what the canary means now, None if nothing.

        The same user gets the same side as long as the weight stays, and keeps the canary where
        the weight grows.
        """
        if canary_version is None or canary_version in self.rolled_back:
            return Choice(self.stable)
        share = self._draw() if user is None else _place(self.name, user)
        if share >= self.spec.weight:
            return Choice(self.stable)
        if self.spec.shadow:
            return Choice(self.stable, shadow=self.canary)
        return Choice(self.canary)

    def record(self, version: str, failed: bool, canary_version: str | None) -> bool:
        """Count an answer; whether it was the one that rolls the canary back."""
        side = "canary" if version == canary_version else "stable"
        self._counts[f"{side}_answers"] += 1
        self._counts[f"{side}_failed"] += failed
        if side == "stable" or version in self.rolled_back:
            return False
        limits = self.spec.rollback
        # Of this version: a canary whose alias moved begins anew.
        window = self._failures.setdefault(version, deque(maxlen=limits.window))
        window.append(failed)
        rate = sum(window) / len(window)
        if len(window) < limits.min_requests or rate <= limits.error_rate:
            return False
        self.rolled_back.add(version)
        return True

    def compared(self, differs: bool) -> None:
        """Count a shadow answer."""
        self._counts["compared"] += 1
        self._counts["differed"] += differs

    def facts(self) -> dict[str, Any]:
        """What /v1/routes says of it."""
        counted = ("stable_answers", "stable_failed", "canary_answers", "canary_failed")
        counted += ("compared", "differed")
        return {
            "name": self.name,
            "stable": self.stable,
            "canary": self.canary,
            "weight": self.spec.weight,
            "shadow": self.spec.shadow,
            "rolled_back": sorted(self.rolled_back),
            **{key: self._counts[key] for key in counted},
        }


def _place(name: str, user: str) -> float:
    """Where a user stands in [0, 1): the same on every replica."""
    digest = hashlib.blake2b(f"{name}\0{user}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
