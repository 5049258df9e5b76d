"""Routes about the adapters themselves: list, load, unload; vLLM's own two beside them."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse

from raylora.serve.edge.caller import caller_of, permitted
from raylora.serve.http.api_errors import model_not_found
from raylora.serve.http.endpoint import Endpoint
from raylora.serve.http.fields import Body
from raylora.serve.http.listings import adapter_entries, adapter_entry


class LoadBody(Body):
    """POST /v1/adapters."""

    model: str
    """name, name@7, name@alias or run:ID."""
    pin: bool = True
    """Whether it stays loaded; a pinned name or alias is followed when it moves."""


class LoadLoraBody(Body):
    """POST /v1/load_lora_adapter, as with vLLM."""

    lora_name: str
    lora_path: str


class UnloadLoraBody(Body):
    """POST /v1/unload_lora_adapter, as with vLLM."""

    lora_name: str
    lora_int_id: int | None = None
    """Accepted; names are enough here."""


def add(app: FastAPI, endpoint: Endpoint) -> None:
    """Add the routes of one replica."""
    residency = endpoint.residency

    @app.get("/v1/adapters")
    async def adapters(request: Request) -> dict[str, Any]:
        key = caller_of(request).key
        entries = [entry for entry in adapter_entries(endpoint) if key.may_use(entry["id"])]
        return {"object": "list", "base": endpoint.base, "data": entries}

    @app.post("/v1/adapters")
    async def load(body: LoadBody) -> dict[str, Any]:
        resident = await endpoint.answerable(residency.load(body.model, pin=body.pin))
        return adapter_entry(endpoint, resident)

    @app.get("/v1/adapters/{model}")
    async def adapter(model: str, request: Request) -> dict[str, Any]:
        """One version, loaded if need be."""
        lease = await permitted(caller_of(request), model, endpoint.acquire)
        lease.release()
        if lease.resident is None:
            raise model_not_found(f"{model} is the base, not an adapter")
        return adapter_entry(endpoint, lease.resident)

    @app.delete("/v1/adapters/{model}")
    async def unload(model: str) -> dict[str, Any]:
        resident = await endpoint.answerable(residency.unload(model))
        return adapter_entry(endpoint, resident)

    @app.get("/v1/routes")
    async def routes() -> dict[str, Any]:
        return {"object": "list", "data": endpoint.routing.facts}

    @app.post("/v1/load_lora_adapter")
    async def load_lora(body: LoadLoraBody) -> PlainTextResponse:
        await endpoint.answerable(residency.load_folder(body.lora_name, body.lora_path))
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully.")

    @app.post("/v1/unload_lora_adapter")
    async def unload_lora(body: UnloadLoraBody) -> PlainTextResponse:
        if residency.folders.key(body.lora_name) is None:
            raise model_not_found(f"{body.lora_name} was not loaded from a folder", "lora_name")
        await endpoint.answerable(residency.unload(body.lora_name))
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")
