"""Refuses large request bodies before they are in memory."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raylora.serve.http.api_errors import ApiError, body_too_large
from raylora.serve.http.headers import header

MAX_BODY_BYTES = 10_000_000
"""Bodies of this size and more are answered 413; a 128k-token prompt has about 600 kB."""


class BodyLimit:
    """ASGI middleware: by Content-Length at once, without one as the bytes arrive."""

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on while its body stays below the limit."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = header(scope, b"content-length")
        if declared.isdigit() and int(declared) >= self._limit:
            await body_too_large(self._limit).response()(scope, receive, send)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received >= self._limit:
                raise body_too_large(self._limit)
            return message

        try:
            await self._app(scope, limited, send)
        except ApiError as error:
            await error.response()(scope, receive, send)


async def read_body(scope: Scope, receive: Receive, limit: int = MAX_BODY_BYTES) -> bytes:
    """All of a request's body. Raises ApiError where it reaches the limit."""
    declared = header(scope, b"content-length")
    if declared.isdigit() and int(declared) >= limit:
        raise body_too_large(limit)
    pieces: list[bytes] = []
    received, more = 0, True
    while more:
        message = await receive()
        pieces.append(message.get("body", b""))
        received += len(pieces[-1])
        if received >= limit:
            raise body_too_large(limit)
        more = message.get("more_body", False)
    return b"".join(pieces)
