"""ASGI middleware, the outermost: keeps the record of each request and hands it on at the end."""

from collections.abc import Callable, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raylora.serve.edge.request_record import ID, RequestRecord, begin

UNSEEN = frozenset({"/healthz"})
"""Asked every few seconds by machines that want no record of it."""


class Observer:
    """Tells `told` of each request once its response is over, however it ended."""

    def __init__(self, app: ASGIApp, told: Sequence[Callable[[RequestRecord], None]]) -> None:
        self._app = app
        self._told = told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Watch one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = begin(scope)

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.sent_status = message["status"]
                if record.has_own_id:
                    message["headers"] = [*message["headers"], (ID, record.id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            record.end()
            if record.path not in UNSEEN:
                for tell in self._told:
                    tell(record)
