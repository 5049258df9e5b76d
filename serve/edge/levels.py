"""What a replica has now, and what its engine did: read at each scrape."""

from raylora.engine.stats import EngineStats
from raylora.serve.edge.metrics import Level
from raylora.serve.http.endpoint import Endpoint


async def levels(endpoint: Endpoint) -> list[Level]:
    """The batch, the queue, the bank, and the engine where it tells."""
    requests, most = endpoint.engine.open_requests, endpoint.batching.max_batch_size
    found = [
        Level("requests_running", "Answers that are being generated.", min(requests, most)),
        Level("requests_waiting", "Answers that wait.", max(0, requests - most)),
    ]
    states = [resident.state for resident in endpoint.residency.residents]
    found += [
        Level("adapters", "Versions by state.", states.count(state), {"state": state})
        for state in sorted(set(states))
    ]
    stats = await endpoint.engine.stats()
    return found if stats is None else found + of_engine(stats)


def of_engine(stats: EngineStats) -> list[Level]:
    """What raylora's own engine tells."""
    now = [
        ("prefilling", "Answers whose prompt is being taken in.", stats.prefilling),
        ("kv_bytes", "Keys and values that are held.", stats.kv_bytes),
        ("kv_prefix_bytes", "Of these, beginnings kept for later.", stats.prefix_bytes),
        ("kv_budget_bytes", "Most bytes of keys and values.", stats.kv_budget),
    ]
    counted = [
        ("steps", "Steps.", stats.steps),
        ("prefilled_tokens", "Tokens of prompts that were computed.", stats.prefilled_tokens),
        ("reused_tokens", "Tokens of prompts that were known.", stats.reused_tokens),
        ("decoded_tokens", "Tokens generated.", stats.decoded_tokens),
    ]
    return [
        Level(f"engine_{name}", text, value) for name, text, value in now if value is not None
    ] + [Level(f"engine_{name}", text, value, grows=True) for name, text, value in counted]
