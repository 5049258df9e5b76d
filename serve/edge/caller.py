"""Who asks, and what that key may do: which models, which routes, how much."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeVar

from starlette.requests import Request
from starlette.types import Scope

from raylora.config.key_file import ApiKey
from raylora.serve.edge.rate import Limiter
from raylora.serve.http.api_errors import ApiError, model_not_found

T = TypeVar("T")

_STATE = "raylora_caller"

_OF_EVERY_KEY = {
    "GET": ("/v1/models", "/v1/adapters"),
    "POST": ("/v1/chat/completions", "/v1/completions"),
}
"""Routes, with what is below them, that need no admin key. All others do, also those to come."""


class Caller:
    """One request's key at work."""

    def __init__(self, key: ApiKey, limiter: Limiter) -> None:
        self.key = key
        self._limiter = limiter

    def may_call(self, method: str, path: str) -> bool:
        """Whether the key opens this route."""
        if self.key.admin:
            return True
        routes = _OF_EVERY_KEY.get(method, ())
        return any(path == route or path.startswith(f"{route}/") for route in routes)

    def require(self, model: str) -> None:
        """Raise 404 for a model that is not on the key's list: it does not exist for this key.

        403 would say that there is something; names of other tenants are their own.
        """
        if not self.key.may_use(model):
            raise _hidden(model)

    def told(self, model: str, error: ApiError) -> ApiError:
        """The error of a lookup as this caller may hear it: one for what is not, or is hidden.

        The usual one names the nearest models, of which some may be hidden.
        """
        if error.status_code == HTTPStatus.NOT_FOUND and not self.key.may_use_all:
            return _hidden(model)
        return error

    def reserve(self, tokens: int) -> Callable[[int], None]:
        """Count the most tokens a request may come to; call the result with what it came to.

        Raises 429.
        """
        return self._limiter.reserve(self.key, tokens)


def put(scope: Scope, caller: Caller) -> None:
    """Attach a caller to a request."""
    scope.setdefault("state", {})[_STATE] = caller


def caller_of(request: Request) -> Caller:
    """Who asks."""
    return request.scope["state"][_STATE]


async def permitted(caller: Caller, model: str, look_up: Callable[[str], Awaitable[T]]) -> T:
    """What a lookup finds, if the caller may know of it."""
    caller.require(model)
    try:
        return await look_up(model)
    except ApiError as error:
        raise caller.told(model, error) from error


def _hidden(model: str) -> ApiError:
    return model_not_found(f"no model {model!r} for this key; GET /v1/models lists those it has")
