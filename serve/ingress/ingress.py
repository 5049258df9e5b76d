"""The ingress: a light process, without torch, between the clients and the replicas."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

from ray.serve.exceptions import DeploymentUnavailableError
from starlette.types import ASGIApp

from raylora.config.serve_spec import ServeSpec
from raylora.serve.ingress.door import behind_door
from raylora.serve.ingress.link import Address
from raylora.serve.ingress.listener import Listener
from raylora.serve.ingress.refusals import Refusals
from raylora.serve.ingress.relay import Relay
from raylora.serve.ingress.replicas import Replicas

LOOK_LIMIT_S = 5.0
"""A replica that does not say its address within this time is asked again."""
WAKE_S = 2.0
"""Between two calls for a replica where there is none."""


class Ingress:
    """Ray Serve's ingress class; with `listens` it answers HTTP itself, not Serve's proxies."""

    async def __init__(
        self, document: dict[str, Any], replicas: Any, listens: bool, drain_s: float
    ) -> None:
        """`replicas`: Serve's handle of their deployment."""
        logging.getLogger("raylora").setLevel(logging.INFO)
        spec = ServeSpec.model_validate(document)
        self._handle = replicas
        self._drain_s = drain_s
        self._woken = float("-inf")
        self._replicas = Replicas(self._addresses, self._wake)
        refusals = Refusals()
        self._relay = Relay(
            self._replicas, timeout_s=spec.batching.request_timeout_s, metrics=refusals.text
        )
        self._looking = asyncio.ensure_future(self._replicas.run())
        self._app = behind_door(self._relay, spec, refusals)
        self._listener = Listener(self._app, spec.host, spec.port) if listens else None
        if self._listener is not None:
            self._listener.start()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The application that Serve's proxies call, where there are any."""
        return self._app

    def check_health(self) -> None:
        """Serve starts another ingress where this raises."""
        if self._looking.done() or (self._listener is not None and not self._listener.is_alive):
            raise RuntimeError("the ingress has failed")

    async def __del__(self) -> None:
        """Serve is stopping it: running requests may end."""
        if self._listener is not None:
            self._listener.close()
        deadline = time.monotonic() + self._drain_s
        while self._relay.open_requests and time.monotonic() < deadline:
            await asyncio.sleep(0.05)

    async def _addresses(self) -> Sequence[Address]:
        """Of the replicas that run; there may be none."""
        try:
            told = await self._handle.broadcast("address").results_async(
                timeout_s=LOOK_LIMIT_S, return_exceptions=True
            )
        except DeploymentUnavailableError:
            return []
        return [Address(*each) for each in told if isinstance(each, tuple)]

    def _wake(self) -> None:
        """A call that waits for a replica is what makes Serve start one where it has none."""
        if time.monotonic() - self._woken > WAKE_S:
            self._woken = time.monotonic()
            self._handle.awake.remote()
