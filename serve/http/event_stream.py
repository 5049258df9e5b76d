"""Server-sent events as a response that ends where its client does."""

from collections.abc import AsyncGenerator, Mapping
from http import HTTPStatus
from typing import Any

from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from raylora.serve.http.api_errors import CLIENT_CLOSED_REQUEST, ApiError
from raylora.serve.http.connected import while_connected


class EventStream(Response):
    """Closes its generator at once when the client goes, which frees the row."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], headers: Mapping[str, str]) -> None:
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events as they come."""
        try:
            await while_connected(receive, self._send(send))
        except ApiError as error:
            if error.status_code != CLIENT_CLOSED_REQUEST:
                raise
        finally:
            await self._events.aclose()

    async def _send(self, send: Send) -> None:
        start: dict[str, Any] = {"status": HTTPStatus.OK.value, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        async for event in self._events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
