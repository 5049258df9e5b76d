"""How much a key has used in the last minute, and when it may go on.

A sliding window, so that no 60 seconds ever hold more than the limit. Tokens are reserved when a
request is taken (its prompt and all it may generate) and settled when it ends, which the packages
for rate limits have no word for: they count once.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from raylora.config.key_file import ApiKey
from raylora.serve.http.api_errors import ApiError, rate_limited

WINDOW_S = 60.0


@dataclass
class Use:
    """An amount that counts for a minute; it may shrink while it does."""

    amount: int
    at: float


@dataclass
class Window:
    """What was used of one limit."""

    limit: int
    _uses: deque[Use] = field(default_factory=deque[Use])
    _used: int = 0

    def wait_s(self, amount: int, now: float) -> float:
        """Seconds until the amount fits; 0 where it does now, infinite where it never will."""
        self._forget(now)
        if amount > self.limit:
            return math.inf
        excess = self._used + amount - self.limit
        for use in self._uses:
            if excess <= 0:
                break
            excess -= use.amount
            if excess <= 0:
                return use.at + WINDOW_S - now
        return 0.0

    def take(self, amount: int, now: float) -> Use:
        """Count an amount."""
        use = Use(amount, now)
        self._uses.append(use)
        self._used += amount
        return use

    def settle(self, use: Use, amount: int, now: float) -> None:
        """Correct a use to what it came to, unless it is forgotten already."""
        self._forget(now)
        if use.at + WINDOW_S > now:
            self._used += amount - use.amount
            use.amount = amount

    def _forget(self, now: float) -> None:
        while self._uses and self._uses[0].at + WINDOW_S <= now:
            self._used -= self._uses.popleft().amount


class Limiter:
    """The limits of all keys, as one process sees them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: dict[tuple[str, str, int], Window] = {}

    def count_request(self, key: ApiKey) -> None:
        """Count a request, whatever becomes of it. Raises ApiError (429)."""
        self._take(key, "requests", key.requests_per_minute, 1)

    def reserve(self, key: ApiKey, tokens: int) -> Callable[[int], None]:
        """Count so many tokens; call what it gives with the number they came to.

        Raises ApiError (429).
        """
        taken = self._take(key, "tokens", key.tokens_per_minute, tokens)
        if taken is None:
            return _nothing_to_settle
        window, use = taken
        return lambda came_to: window.settle(use, came_to, self._clock())

    def _take(
        self, key: ApiKey, unit: str, limit: int | None, amount: int
    ) -> tuple[Window, Use] | None:
        if limit is None:
            return None
        # A limit that changes in the file begins anew.
        window = self._windows.setdefault((key.id, unit, limit), Window(limit))
        now = self._clock()
        if wait := window.wait_s(amount, now):
            raise _refused(limit, amount, unit, wait)
        return window, window.take(amount, now)


def _nothing_to_settle(came_to: int) -> None:
    pass


def _refused(limit: int, amount: int, unit: str, wait: float) -> ApiError:
    if math.isinf(wait):
        return rate_limited(
            f"the request may come to {amount} {unit} and the key has {limit} a minute; "
            "shorten the prompt or ask for fewer tokens (max_tokens)",
            retry_after_s=None,
        )
    return rate_limited(
        f"the key has {limit} {unit} a minute, and they are used up", math.ceil(wait)
    )
