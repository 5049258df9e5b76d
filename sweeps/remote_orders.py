"""Orders by way of the mailbox's actor."""

from collections.abc import Sequence
from typing import Any

import ray

from raylora.sweeps.orders import Order, TrialReport
from raylora.sweeps.spare_threads import Place


class RemoteOrders:
    """What the first worker of a slot asks."""

    def __init__(self, mailbox: Any, slot: str, lends: int = 0) -> None:
        """lends: threads of a slot that may use those of its neighbours, and they its own."""
        self._mailbox = mailbox
        self._slot = slot
        self._lends = lends

    def opened(self) -> None:
        """See Orders."""
        node: str = ray.get_runtime_context().get_node_id()
        place = Place(node, self._lends) if self._lends else None
        ray.get(self._mailbox.opened.remote(self._slot, place))

    def exchange(self, reports: Sequence[TrialReport], idle: bool) -> Sequence[Order]:
        """See Orders."""
        return ray.get(self._mailbox.exchange.remote(self._slot, reports, idle))
