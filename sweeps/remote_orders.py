"""Orders by way of the mailbox's actor."""

from collections.abc import Sequence
from typing import Any

import ray

from raylora.sweeps.orders import Order, TrialReport


class RemoteOrders:
    """What the first worker of a slot asks."""

    def __init__(self, mailbox: Any, slot: str) -> None:
        self._mailbox = mailbox
        self._slot = slot

    def opened(self) -> None:
        """See Orders."""
        ray.get(self._mailbox.opened.remote(self._slot))

    def exchange(self, reports: Sequence[TrialReport], idle: bool) -> Sequence[Order]:
        """See Orders."""
        return ray.get(self._mailbox.exchange.remote(self._slot, reports, idle))
