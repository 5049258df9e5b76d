"""Failures as OpenAI's clients expect them: {"error": {"message", "type", "param", "code"}}."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

log = logging.getLogger(__name__)

CLIENT_CLOSED_REQUEST = 499
"""nginx's status; HTTP has none."""


class ErrorBody(BaseModel):
    """The inside of {"error": ...}."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ApiError(HTTPException):
    """A request that is answered with an error.

    An HTTPException, since FastAPI passes no other on that is raised while it reads a body.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.body = ErrorBody(message=message, type=_kind(status), param=param, code=code)

    def content(self) -> dict[str, Any]:
        """The JSON body."""
        return {"error": self.body.model_dump()}

    def response(self) -> JSONResponse:
        """The HTTP answer."""
        return JSONResponse(self.content(), status_code=self.status_code, headers=self.headers)


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """The request is wrong as it stands."""
    return ApiError(HTTPStatus.BAD_REQUEST, message, param=param, code=code)


def invalid_body(problems: Sequence[Mapping[str, Any]]) -> ApiError:
    """The first of pydantic's problems with a body, with the field it is in."""
    first = problems[0]
    path = [str(part) for part in first["loc"] if part != "body"]
    param = ".".join(path) or None
    if first["type"] == "json_invalid":
        return bad_request(f"the body is no JSON: {first['ctx']['error']}")
    where = f"{param}: " if param else "body: "
    more = f" ({len(problems) - 1} more problems)" if len(problems) > 1 else ""
    return bad_request(f"{where}{first['msg']}{more}", param, first["type"])


def model_not_found(message: str, param: str = "model") -> ApiError:
    """No such base, adapter, version or alias."""
    return ApiError(HTTPStatus.NOT_FOUND, message, param=param, code="model_not_found")


def invalid_key(message: str) -> ApiError:
    """No key, or none that is known."""
    return ApiError(
        HTTPStatus.UNAUTHORIZED,
        message,
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )


def not_permitted(message: str) -> ApiError:
    """The key is known and may not do this."""
    return ApiError(HTTPStatus.FORBIDDEN, message, code="insufficient_permissions")


def rate_limited(message: str, retry_after_s: int | None) -> ApiError:
    """A key's limit; None where trying again changes nothing."""
    again = {"x-should-retry": "false"}
    if retry_after_s is not None:
        again = {"Retry-After": str(retry_after_s)}
    return ApiError(
        HTTPStatus.TOO_MANY_REQUESTS, message, code="rate_limit_exceeded", headers=again
    )


def queue_full(waiting: int, retry_after_s: int) -> ApiError:
    """More is waiting than the spec allows."""
    return ApiError(
        HTTPStatus.TOO_MANY_REQUESTS,
        f"{waiting} requests are waiting already; try again in {retry_after_s} s",
        code="rate_limit_exceeded",
        headers={"Retry-After": str(retry_after_s)},
    )


def deadline_passed(seconds: float) -> ApiError:
    """The answer took longer than the spec allows; OpenAI's client is told not to try again."""
    return ApiError(
        HTTPStatus.REQUEST_TIMEOUT,
        f"no complete answer within {seconds:g} s; ask for fewer tokens",
        code="request_timeout",
        headers={"x-should-retry": "false"},
    )


def client_gone() -> ApiError:
    """Nobody reads this; the status is what proxies write into their logs."""
    return ApiError(CLIENT_CLOSED_REQUEST, "the client has gone")


def body_too_large(limit: int) -> ApiError:
    """The request body is at or over the limit."""
    return ApiError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the request body must be smaller than {limit} bytes",
        code="request_too_large",
    )


def unavailable(message: str) -> ApiError:
    """Something this endpoint needs does not answer."""
    return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, message, code="unavailable")


def no_replica(seconds: float) -> ApiError:
    """None was there, and none came."""
    return ApiError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"no replica has started within {seconds:g} s; the endpoint's log says more",
        code="no_replica",
    )


def all_failed(retry_after_s: int) -> ApiError:
    """No replica's engine runs any more; others are on their way."""
    return ApiError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "the engine of every replica has failed and is being replaced; "
        f"try again in {retry_after_s} s",
        code="engine_failed",
        headers={"Retry-After": str(retry_after_s)},
    )


def replica_lost() -> ApiError:
    """What generated the answer has died; the request may be sent again."""
    return ApiError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "the replica that was answering has died; send the request again",
        code="replica_lost",
    )


def internal_error(message: str) -> ApiError:
    """Something failed here; the request may be right."""
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, message, code="internal_error")


def install(app: FastAPI) -> None:
    """Answer every failure of the app in OpenAI's shape."""

    async def api_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return error.response()

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return invalid_body(error.errors()).response()

    async def http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        where = f"{request.method} {request.url.path}"
        message = f"{where}: {error.detail}"
        return ApiError(error.status_code, message).response()

    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return internal_error("internal error; the endpoint's log says more").response()

    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, unexpected)


def _kind(status: int) -> str:
    match status:
        case HTTPStatus.NOT_FOUND:
            return "not_found_error"
        case HTTPStatus.TOO_MANY_REQUESTS:
            return "rate_limit_error"
        case HTTPStatus.REQUEST_TIMEOUT:
            return "timeout_error"
        case status if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return "server_error"
        case _:
            return "invalid_request_error"
