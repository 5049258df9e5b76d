"""The ingress's own HTTP server: uvicorn on the spec's address, inside Serve's actor.

A request through Ray Serve's proxy passes two more processes and costs several times more
(README: figures).
"""

import asyncio
import socket
import time

import uvicorn
from starlette.types import ASGIApp

from raylora.errors import RayloraError

BIND_S = 15.0
"""The ingress of an earlier deployment gives the port back within this time."""
BACKLOG = 2048


class Listener:
    """Serves one application until it is closed."""

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        self._socket = _bound(host, port)
        config = uvicorn.Config(
            app,
            http="httptools",
            loop="none",
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            # A client's address is that of its connection, whatever a header says.
            proxy_headers=False,
        )
        self._server = uvicorn.Server(config)
        self._serving: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Accept connections, on the running loop."""
        self._serving = asyncio.ensure_future(self._server.serve(sockets=[self._socket]))

    @property
    def is_alive(self) -> bool:
        """Whether connections are accepted."""
        return self._serving is not None and not self._serving.done()

    def close(self) -> None:
        """Accept no more; running requests go on."""
        for server in self._server.servers:
            server.close()
        self._socket.close()


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    deadline = time.monotonic() + BIND_S
    while True:
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host, port))
            found.listen(BACKLOG)
            return found
        except OSError as error:
            found.close()
            if time.monotonic() > deadline:
                raise RayloraError(
                    f"cannot listen on {host}:{port}: {error}", hint="set another port="
                ) from error
            time.sleep(0.2)
