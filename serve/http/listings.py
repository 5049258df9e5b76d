"""What /v1/models and /v1/adapters say."""

from typing import Any, Literal

from pydantic import BaseModel

from raylora.serve.adapters.resident import AdapterState, Resident
from raylora.serve.http.endpoint import Endpoint
from raylora.tracking.adapters.reference import Reference


class ModelCard(BaseModel):
    """One entry of /v1/models."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "raylora"
    root: str
    """The model it stands for: name@version for an adapter, the base for itself."""
    parent: str | None = None
    """The base below an adapter."""


async def model_cards(endpoint: Endpoint) -> list[ModelCard]:
    """The base, each adapter by name, and each version that is loaded."""
    catalogue, folders = endpoint.residency.catalogue, endpoint.residency.folders
    await catalogue.refresh(catalogue.fresh_s)
    cards = [model_card(endpoint, endpoint.base, None)]
    meant = {name: catalogue.meaning(Reference(name)) for name in catalogue.known}
    cards += [model_card(endpoint, name, key) for name, key in {**meant, **folders.keys}.items()]
    for resident in endpoint.residency.residents:
        if resident.state.is_loaded:
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


def adapter_entries(endpoint: Endpoint) -> list[dict[str, Any]]:
    """Every version that was asked for, and of each other adapter the one that its name means."""
    residency = endpoint.residency
    residents = {resident.key: resident for resident in residency.residents}
    for name in residency.catalogue.known:
        key = residency.catalogue.meaning(Reference(name))
        if key is not None and key not in residents:
            residents[key] = Resident(key, AdapterState.KNOWN)
    return [adapter_entry(endpoint, residents[key]) for key in sorted(residents)]


def adapter_entry(endpoint: Endpoint, resident: Resident) -> dict[str, Any]:
    """One version with its state and use on this replica."""
    residency = endpoint.residency
    name, _, version = resident.key.partition("@")
    number = int(version) if version.isdecimal() else None
    facts = resident.facts
    return {
        "id": resident.key,
        "object": "adapter",
        "name": name,
        "version": number,
        "aliases": [] if number is None else residency.catalogue.aliases(name, number),
        "state": resident.state,
        "error": None if resident.error is None else resident.error.message,
        "tier": residency.tier(resident),
        "pinned": resident.key in residency.pinned,
        "rank": None if facts is None else facts.r,
        "bytes": None if facts is None else facts.bytes,
        "quantization": None if facts is None else facts.quantization,
        "system_prompt": resident.system_prompt,
        "in_use": resident.in_use,
        "requests": resident.requests,
        "last_used": resident.last_used,
    }
