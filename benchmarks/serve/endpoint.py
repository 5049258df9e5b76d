"""An endpoint in a sandbox, as `raylora serve up` has it, with a registry of its own."""

import json
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.bars.footprint import processes
from benchmarks.bars.sandbox import Sandbox, sandbox
from benchmarks.bars.smollm2 import Base, smollm2
from benchmarks.serve.adapter_files import write_adapter
from raylora.config.train_spec import TrackingSpec
from raylora.tracking.adapters.promotion import promote
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.location import tracking_uri
from raylora.tracking.run import RunStatus
from raylora.tracking.runs import open_run

SERVE_PROCESSES = ("ServeReplica", "ProxyActor", "ServeController", "haproxy", "raylora.serve")
UP_S = 300.0


@dataclass(frozen=True)
class Endpoint:
    """What answers, and where its adapters come from."""

    box: Sandbox
    base: Base
    url: str
    registry: Registry

    def point(self, name: str, version: int, alias: str = "champion") -> None:
        """Move an alias, as `raylora adapters promote` does."""
        promote(self.registry, f"{name}@{version}", alias)

    def client(self, connections: int = 64) -> httpx.AsyncClient:
        """For loopback alone: no proxy, and no wait of its own."""
        limits = httpx.Limits(max_connections=connections)
        return httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=300, limits=limits)


@contextmanager
def endpoint(versions: dict[str, int], *overrides: str) -> Iterator[Endpoint]:
    """Serve with so many versions of each name registered; the first of each is champion."""
    base = smollm2()
    with sandbox() as box:
        registry = registered(box, base, versions)
        port = free_port()
        # What an endpoint of this name held before would be loaded first.
        own = (f"port={port}", f"name=bars-{box.folder.name}")
        box.raylora("serve", "up", *own, *overrides, timeout_s=UP_S).expect()
        yield Endpoint(box, base, f"http://127.0.0.1:{port}", registry)


def registered(box: Sandbox, base: Base, versions: dict[str, int]) -> Registry:
    """Random adapters in the registry that a command in this sandbox finds by itself."""
    uri = tracking_uri(TrackingSpec(), str(box.folder / "outputs"))
    registry = Registry(uri)
    seed = 0
    for name, count in versions.items():
        for number in range(1, count + 1):
            seed += 1
            files = write_adapter(box.folder / "adapters" / f"{name}-{number}", base.local, seed)
            run = open_run(uri, "bars", f"{name}-{number}", name, params={}, tags={})
            registry.register(name, run, files, tags={})
            run.finish(RunStatus.FINISHED)
        promote(registry, f"{name}@1", only_if_unset=True)
    return registry


def serve_processes(home: Path) -> list[str]:
    """Whatever belongs to Serve and is alive in this home."""
    return [
        name for name in processes(home).values() if any(part in name for part in SERVE_PROCESSES)
    ]


def down_seconds(box: Sandbox, limit_s: float) -> tuple[float, list[str]]:
    """Stop the endpoint: seconds until nothing of it is alive, and what is at the limit."""
    started = time.monotonic()
    box.raylora("serve", "down", timeout_s=limit_s + 60).expect()
    left = serve_processes(box.home)
    while left and time.monotonic() - started < limit_s:
        time.sleep(0.2)
        left = serve_processes(box.home)
    return time.monotonic() - started, left


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def events(lines: Sequence[str]) -> list[dict[str, object]]:
    """The JSON of a stream's server-sent events, without its end."""
    return [
        json.loads(line[6:])
        for line in lines
        if line.startswith("data: ") and line != "data: [DONE]"
    ]
