"""A route that reads its body itself: FastAPI's way to it costs 100 us more a request."""

from collections.abc import Awaitable, Callable
from typing import Any, get_type_hints

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.types import Receive, Scope, Send

from raylora.serve.http.api_errors import bad_request
from raylora.serve.http.fields import Body


class BodyRoute(APIRoute):
    """Documented as any other; its endpoint takes a body and the request, and gives a response."""

    def __init__(self, path: str, endpoint: Callable[..., Awaitable[Response]], **given: Any):
        super().__init__(path, endpoint, **given)
        self._body: type[Body] = get_type_hints(endpoint)["body"]

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; what is raised is answered by the app's handlers."""
        if scope["method"] not in self.methods:
            await super().handle(scope, receive, send)
            return
        request = Request(scope, receive, send)
        response: Response = await self.endpoint(await _read(self._body, request), request)
        await response(scope, receive, send)


async def _read(wanted: type[Body], request: Request) -> Body:
    raw = await request.body()
    # A page of another origin may send any other type without asking first.
    if not _is_json(request.headers.get("content-type", "")):
        raise bad_request("the body is no JSON: its content-type must be application/json")
    try:
        return wanted.model_validate(from_json(raw))
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
    except ValueError as error:
        raise bad_request(f"the body is no JSON: {error}") from error


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )
