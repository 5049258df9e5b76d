"""Routes that read their bodies themselves, and are reached past FastAPI's router."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, get_type_hints

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.types import ASGIApp, Receive, Scope, Send

from raylora.serve.http.api_errors import bad_request, invalid_body
from raylora.serve.http.fields import Body


class BodyRoute(APIRoute):
    """Documented as any other; its endpoint takes a body and the request, and gives a response."""

    def __init__(self, path: str, endpoint: Callable[..., Awaitable[Response]], **given: Any):
        super().__init__(path, endpoint, **given)
        self._body: type[Body] = get_type_hints(endpoint)["body"]

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises ApiError."""
        if scope["method"] not in self.methods:
            await super().handle(scope, receive, send)
            return
        request = Request(scope, receive, send)
        response: Response = await self.endpoint(await _read(self._body, request), request)
        await response(scope, receive, send)


class Shortcut:
    """ASGI middleware, the innermost: leads to these routes.

    FastAPI's stack of exits, its table of routes and its reading of bodies cost 160 us a request,
    as much as all of the answer but the prompt.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BodyRoute]) -> None:
        self._app = app
        self._routes = {
            (method, each.path): each for each in routes for method in each.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        route = self._routes.get((scope.get("method", ""), scope.get("path", "")))
        await (self._app if route is None else route.handle)(scope, receive, send)


async def _read(wanted: type[Body], request: Request) -> Body:
    raw = await request.body()
    # A page of another origin may send any other type without asking first.
    if not _is_json(request.headers.get("content-type", "")):
        raise bad_request("the body is no JSON: its content-type must be application/json")
    try:
        return wanted.model_validate(from_json(raw))
    except ValidationError as error:
        raise invalid_body(error.errors()) from error
    except ValueError as error:
        raise bad_request(f"the body is no JSON: {error}") from error


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )
