"""What the engine has done and is doing, as one small snapshot for metrics."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineStats:
    """Counters are since the engine was made; the rest is now."""

    waiting: int
    """Requests that have no row yet."""
    prefilling: int
    """Rows whose prompt is being taken in."""
    running: int
    """Rows that generate."""
    steps: int
    prefilled_tokens: int
    """Prompt tokens computed, without padding."""
    reused_tokens: int
    """Prompt tokens whose keys and values were known."""
    prefix_hits: int
    """Requests that reused any."""
    decoded_tokens: int
    kv_bytes: int
    """Keys and values that are held: of rows, of prompts on their way, of prefixes kept."""
    prefix_bytes: int
    """Of these, prefixes."""
    kv_budget: int | None
    """Most bytes; None has no end."""
