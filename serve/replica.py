"""One replica: the base, the bank and the engine in a process of Ray Serve's."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI

from raylora import __version__
from raylora.config.places import cache
from raylora.config.serve_spec import ServeSpec
from raylora.engine.generator import Engine
from raylora.lora import devices
from raylora.lora.bank import Bank
from raylora.lora.base import load_for_generation, load_tokenizer
from raylora.lora.sources import LocalModel, fetch
from raylora.serve.catalogue import Catalogue
from raylora.serve.endpoint import Endpoint, fingerprint
from raylora.serve.engine_thread import EngineThread
from raylora.serve.folders import Folders
from raylora.serve.openai_api import create_app
from raylora.serve.remembered import MemoryFile
from raylora.serve.residency import Residency
from raylora.serve.shelf import BankSlots, RegistryShelf
from raylora.tracking.location import tracking_uri
from raylora.tracking.reference import is_run, parse
from raylora.tracking.registry import Registry


class Replica:
    """Ray Serve's ingress class; Serve makes the app by `__serve_build_asgi_app__`."""

    async def __init__(self, document: dict[str, Any]) -> None:
        """Load the base and the adapters that the spec (as JSON) names."""
        logging.getLogger("raylora").setLevel(logging.INFO)
        spec = ServeSpec.model_validate(document)
        torch.set_num_threads(max(1, int(spec.cpus_per_replica)))
        self._endpoint = start_endpoint(spec)
        await self._endpoint.residency.restore(spec.adapters)
        self._following = asyncio.ensure_future(self._endpoint.residency.follow())

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The routes of this replica."""
        return create_app(self._endpoint)

    def check_health(self) -> None:
        """Serve starts a new replica where this raises."""
        if not self._endpoint.engine.is_alive:
            raise RuntimeError("the engine has failed")


def start_endpoint(spec: ServeSpec) -> Endpoint:
    """Everything behind the routes, its engine running; no adapter is loaded yet."""
    local = fetch(spec.model, cache())
    device = devices.pick()
    tokenizer = load_tokenizer(local)
    model = load_for_generation(local, spec.model, device)
    bank = Bank(model, base_revision=local.revision)
    engine = Engine(
        model,
        tokenizer,
        bank,
        max_batch_size=spec.batching.max_batch_size,
        max_length=spec.model.max_length,
        cache_bytes=spec.batching.cache_mb << 20,
        prefill_tokens=spec.batching.prefill_tokens,
    )
    thread = EngineThread(engine)
    thread.start()
    registry = Registry(tracking_uri(spec.tracking, spec.outputs))
    only = frozenset(ref if is_run(ref) else parse(ref).name for ref in spec.adapters)
    catalogue = Catalogue(registry.list, only, fresh_s=spec.poll_interval_s)
    shelf = RegistryShelf(registry, cache() / "adapters")
    root = None if spec.adapters_root is None else Path(spec.adapters_root)
    slots = BankSlots(bank, thread, spec.max_adapters)
    return Endpoint(
        base=spec.model.name,
        fingerprint=_fingerprint(spec, local),
        tokenizer=tokenizer,
        max_length=engine.max_length,
        batching=spec.batching,
        engine=thread,
        residency=Residency(
            spec.model.name,
            catalogue,
            shelf,
            slots,
            folders=Folders(root, cache() / "adapters" / "folders"),
            memory=MemoryFile(cache() / "endpoints" / f"{spec.name}.json"),
            max_bytes=spec.adapter_memory_mb << 20,
        ),
    )


def _fingerprint(spec: ServeSpec, local: LocalModel) -> str:
    return fingerprint(
        raylora=__version__,
        torch=torch.__version__,
        base=local.id,
        revision=local.revision,
        dtype=spec.model.dtype,
        quantization=spec.model.quantization,
    )
