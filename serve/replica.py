"""One replica: an engine and the routes in front of it in a process of Ray Serve's."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import ray
import torch
from ray import serve

from raylora import __version__
from raylora.config.places import cache
from raylora.config.serve_spec import ServeSpec
from raylora.lora.base import load_tokenizer
from raylora.lora.sources import LocalModel, fetch
from raylora.serve.adapters.catalogue import Catalogue
from raylora.serve.adapters.folders import Folders
from raylora.serve.adapters.remembered import MemoryFile
from raylora.serve.adapters.residency import Residency
from raylora.serve.adapters.shelf import RegistryShelf
from raylora.serve.edge.edge import Edge
from raylora.serve.edge.metrics import Metrics
from raylora.serve.edge.watched_slots import WatchedSlots
from raylora.serve.engines import start_engine
from raylora.serve.http.endpoint import Endpoint, fingerprint
from raylora.serve.http.openai_api import create_app
from raylora.serve.ingress.answering import AnsweringServer
from raylora.serve.scaling import QUEUED_TOKENS
from raylora.tracking.adapters.reference import is_run, parse
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.location import tracking_uri


class Replica:
    """Ray Serve's class for the replicas; the ingress connects to each one's own port."""

    async def __init__(self, document: dict[str, Any], drain_s: float) -> None:
        """Load the base and the adapters that the spec (as JSON) names."""
        logging.getLogger("raylora").setLevel(logging.INFO)
        spec = ServeSpec.model_validate(document)
        torch.set_num_threads(max(1, int(spec.cpus_per_replica)))
        self._drain_s = drain_s
        edge = Edge.of(spec, counts=False)
        self._endpoint = start_endpoint(spec, edge.metrics)
        await self._endpoint.residency.restore(spec.adapters)
        self._following = asyncio.ensure_future(self._endpoint.residency.follow())
        self._server = AnsweringServer(
            create_app(self._endpoint, edge), lambda: told(self._endpoint)
        )
        await self._server.start(ray.util.get_node_ip_address())

    def address(self) -> tuple[str, str, int, str]:
        """Where the ingress connects to, and with which secret."""
        id = serve.get_replica_context().replica_id.unique_id
        return id, ray.util.get_node_ip_address(), self._server.port, self._server.secret

    def awake(self) -> bool:
        """Called for its effect on Serve, which starts a replica to answer it."""
        return True

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What raylora.serve.scaling decides by."""
        return {QUEUED_TOKENS: float(self._endpoint.open_tokens)}

    def check_health(self) -> None:
        """Serve starts a new replica where this raises."""
        if failure := self._endpoint.engine.failure:
            raise RuntimeError(failure)
        if self._following.done():
            raise RuntimeError("the registry is not followed any more")

    async def __del__(self) -> None:
        """Serve is stopping it: running requests may end, new ones go elsewhere."""
        await self._server.drain(self._drain_s)
        await self._server.stop()
        await asyncio.to_thread(self._endpoint.engine.stop)


def told(endpoint: Endpoint) -> dict[str, Any]:
    """What the ingress chooses by."""
    return {**endpoint.balance(), "failed": endpoint.engine.failure is not None}


def start_endpoint(spec: ServeSpec, metrics: Metrics) -> Endpoint:
    """Everything behind the routes, its engine running; no adapter is loaded yet."""
    local = fetch(spec.model, cache())
    tokenizer = load_tokenizer(local)
    running = start_engine(spec, local, tokenizer)
    registry = Registry(tracking_uri(spec.tracking, spec.outputs))
    only = frozenset(ref if is_run(ref) else parse(ref).name for ref in spec.adapters)
    catalogue = Catalogue(registry.list, only, fresh_s=spec.poll_interval_s)
    shelf = RegistryShelf(registry, cache() / "adapters")
    root = None if spec.adapters_root is None else Path(spec.adapters_root)
    slots = WatchedSlots(running.slots, metrics)
    return Endpoint(
        base=spec.model.name,
        fingerprint=_fingerprint(spec, local),
        tokenizer=tokenizer,
        max_length=running.max_length,
        batching=spec.batching,
        routes=spec.routes,
        engine=running.engine,
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
        engine=spec.engine,
        dtype=spec.model.dtype,
        quantization=spec.model.quantization,
    )
