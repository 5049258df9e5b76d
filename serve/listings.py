"""What /v1/models and /v1/adapters say."""

from typing import Any

from raylora.serve.endpoint import Endpoint
from raylora.serve.protocol import ModelCard
from raylora.serve.residency import AdapterState, Resident
from raylora.tracking.registry import CHAMPION


async def model_cards(endpoint: Endpoint) -> list[ModelCard]:
    """The base, each adapter by name, and each version that is loaded."""
    await endpoint.residency.catalogue.refresh()
    cards = [model_card(endpoint, endpoint.base, None)]
    for name, summary in endpoint.residency.catalogue.known.items():
        number = summary.aliases.get(CHAMPION, summary.newest)
        cards.append(model_card(endpoint, name, f"{name}@{number}"))
    for resident in endpoint.residency.residents:
        if resident.state is AdapterState.READY:
            cards.append(model_card(endpoint, resident.key, resident.key))
    return cards


def model_card(endpoint: Endpoint, name: str, key: str | None) -> ModelCard:
    """The entry for a name that means the version `key`, or the base."""
    return ModelCard(
        id=name,
        created=endpoint.started,
        root=key or endpoint.base,
        parent=endpoint.base if key else None,
    )


def adapter_entry(endpoint: Endpoint, resident: Resident) -> dict[str, Any]:
    """One version that was asked for, with its state and use."""
    name, _, number = resident.key.partition("@")
    summary = endpoint.residency.catalogue.known.get(name)
    aliases = summary.aliases if summary is not None else {}
    facts = resident.facts
    return {
        "id": resident.key,
        "object": "adapter",
        "name": name,
        "version": int(number),
        "aliases": [alias for alias, at in aliases.items() if at == int(number)],
        "state": resident.state,
        "error": None if resident.error is None else resident.error.message,
        "rank": None if facts is None else facts.r,
        "bytes": None if facts is None else facts.bytes,
        "system_prompt": resident.system_prompt,
        "in_use": resident.in_use,
        "requests": resident.requests,
        "last_used": resident.last_used,
    }
