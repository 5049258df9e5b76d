"""How many replicas there should be, by the tokens that wait in them.

Ray Serve's controller runs this. It gets the module by value, so nothing of raylora is imported.
"""

import math
from typing import Any

QUEUED_TOKENS = "queued_tokens"
"""Name of the figure: tokens that the open requests of a replica may still come to."""


class QueuedTokens:
    """An autoscaling policy of Ray Serve's; it holds the limits and the delays itself."""

    def __init__(self, per_replica: int) -> None:
        self._per_replica = per_replica

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Replicas wanted, and no state to keep."""
        told = (context.aggregated_metrics or {}).get(QUEUED_TOKENS, {})
        enough = wanted(sum(told.values()), self._per_replica)
        if any(replica not in told for replica in context.running_replicas):
            # A new one tells its tokens after ten seconds, and may be at work until then.
            enough = max(enough, context.current_num_replicas)
        return enough, {}


def wanted(queued_tokens: float, per_replica: int) -> int:
    """Enough replicas that none has more than per_replica tokens; none where nothing waits."""
    return math.ceil(queued_tokens / per_replica)
