"""The routes of an endpoint behind an edge, asked in memory."""

from asyncio import run
from typing import Any

import httpx

from raylora.serve.edge.edge import Edge
from raylora.serve.http.endpoint import Endpoint
from raylora.serve.http.openai_api import create_app

HELLO = [{"role": "user", "content": "hello"}]


class EdgeClient:
    """Sends requests, each with the key that is set."""

    def __init__(self, endpoint: Endpoint, edge: Edge, base_url: str = "http://endpoint") -> None:
        self.app = create_app(endpoint, edge)
        self.key: str | None = None
        self._base_url = base_url

    def ask(self, method: str, path: str, **extra: Any) -> httpx.Response:
        headers = dict(extra.pop("headers", {}))
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        return run(self._send(method, path, headers=headers, **extra))

    def get(self, path: str, **extra: Any) -> httpx.Response:
        return self.ask("GET", path, **extra)

    def chat(self, model: str = "tiny", **fields: Any) -> httpx.Response:
        headers = fields.pop("headers", {})
        body = {"model": model, "messages": HELLO, **fields}
        return self.ask("POST", "/v1/chat/completions", json=body, headers=headers)

    async def fetch(self, path: str) -> httpx.Response:
        """GET in an event loop that runs."""
        return await self._send("GET", path)

    async def _send(self, method: str, path: str, **extra: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=self._base_url) as client:
            return await client.request(method, path, **extra)
