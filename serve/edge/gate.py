"""ASGI middleware: nobody passes without a key, but to ask whether the endpoint is well."""

from starlette.types import ASGIApp, Receive, Scope, Send

from raylora.config.serve_spec import is_loopback
from raylora.serve.edge.caller import Caller, put
from raylora.serve.edge.keys import Keyring
from raylora.serve.edge.rate import Limiter
from raylora.serve.edge.request_record import record_in
from raylora.serve.http.api_errors import ApiError, invalid_key, not_permitted
from raylora.serve.http.headers import header

OPEN = frozenset({("GET", "/healthz"), ("GET", "/")})
"""Without a key: health, and the page, which says nothing of this endpoint until it has a key."""


class Gate:
    """Finds the caller of each request, or answers 401 or 403."""

    def __init__(
        self,
        app: ASGIApp,
        keyring: Keyring,
        limiter: Limiter,
        *,
        loopback_only: bool,
        counts: bool,
    ) -> None:
        """`counts`: requests count against their key's limit here, and not behind another gate.

        With `loopback_only`, requests that were sent to another host's name are refused.

        Without keys that keeps out what reaches a loopback port all the same: a proxy before it,
        and pages whose name was made to mean 127.0.0.1 (DNS rebinding).
        """
        self._app = app
        self._keyring = keyring
        self._limiter = limiter
        self._loopback_only = loopback_only
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its caller attached."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # a websocket: there is none, and closing it is the server's
        try:
            if (scope["method"], scope["path"]) not in OPEN:
                self._admit(scope)
        except ApiError as error:
            record_in(scope).refused = True
            await error.response()(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        if self._loopback_only:
            _require_loopback(header(scope, b"host").decode("latin-1"))
        shown = header(scope, b"authorization")
        key = self._keyring.find(_bearer(shown.decode("latin-1")))
        if key is None:
            raise invalid_key(
                "the key is not known here" if shown else "send a key: Authorization: Bearer KEY"
            )
        record = record_in(scope)
        record.key = key
        caller = Caller(key, self._limiter)
        if not caller.may_call(scope["method"], scope["path"]):
            raise not_permitted(f"{scope['method']} {scope['path']} needs an admin key")
        if self._counts and record.generates:
            self._limiter.count_request(key)
        put(scope, caller)


def _bearer(header: str) -> str | None:
    scheme, _, secret = header.partition(" ")
    return secret.strip() if scheme.lower() == "bearer" and secret.strip() else None


def _require_loopback(host: str) -> None:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if not is_loopback(name.strip("[]")):
        raise not_permitted(
            f"without keys this endpoint answers only as localhost, and was called {host!r:.100}; "
            "give it keys (raylora serve keys add NAME) to be reached by other names"
        )
