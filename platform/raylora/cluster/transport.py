"""HTTP with a Ray dashboard: time limits, and every failure as an error of ours."""

import ipaddress
import ssl
from collections.abc import AsyncIterator, Mapping
from functools import cache
from typing import Any

import httpx

from raylora.errors import NotAuthorised, Unreachable

CONNECT_S = 3.0
READ_S = 5.0
"""Ray's own client waits for ever. With these two an unreachable head is an error within 8 s."""


def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    content: bytes | None = None,
    body: Any = None,
    read_s: float = READ_S,
) -> httpx.Response:
    """Return the answer, whatever its status but 401 and 403.

    Raises Unreachable where there is no answer in time, NotAuthorised where the token is refused.
    """
    limits = httpx.Timeout(read_s, connect=CONNECT_S)
    try:
        with httpx.Client(
            timeout=limits, verify=_certificates(), trust_env=not _is_loopback(url)
        ) as client:
            answer = client.request(method, url, headers=dict(headers), content=content, json=body)
    except httpx.HTTPError as error:
        raise unreachable(url, error) from error
    if answer.status_code in (401, 403):
        raise _refused(url, sent_a_token="Authorization" in headers)
    return answer


async def stream(
    url: str, *, headers: Mapping[str, str], query: Mapping[str, str]
) -> AsyncIterator[bytes]:
    """Yield an answer piece by piece as it comes, however long it is silent in between.

    Nothing where its status is another than 200. Raises Unreachable where the connection is not
    made or breaks, NotAuthorised where the token is refused.
    """
    limits = httpx.Timeout(None, connect=CONNECT_S)
    try:
        async with (
            httpx.AsyncClient(
                timeout=limits, verify=_certificates(), trust_env=not _is_loopback(url)
            ) as client,
            client.stream("GET", url, headers=dict(headers), params=dict(query)) as answer,
        ):
            if answer.status_code in (401, 403):
                raise _refused(url, sent_a_token="Authorization" in headers)
            if answer.status_code == 200:
                async for piece in answer.aiter_bytes():
                    yield piece
    except httpx.HTTPError as error:
        raise unreachable(url, error) from error


def unreachable(url: str, error: Exception) -> Unreachable:
    """Say why `url` gave no answer."""
    where = str(httpx.URL(url).copy_with(raw_path=b"/")).rstrip("/")
    match error:
        case httpx.ReadTimeout():
            reason = "accepts the connection and then says nothing"
        case httpx.ConnectTimeout():
            reason = f"does not answer within {CONNECT_S:g} s"
        case httpx.ConnectError():
            reason = f"cannot be reached ({error})"
        case _:
            reason = f"broke the connection ({type(error).__name__}: {error})"
    return Unreachable(
        f"the Ray dashboard at {where} {reason}",
        hint="check the address, and that the cluster is up (raylora cluster status)",
    )


def _refused(url: str, *, sent_a_token: bool) -> NotAuthorised:
    where = httpx.URL(url)
    problem = "refuses the token" if sent_a_token else "wants a token and none was found"
    return NotAuthorised(
        f"the Ray dashboard at {where.scheme}://{where.netloc.decode()} {problem}",
        hint="set RAY_AUTH_TOKEN_PATH (or RAY_AUTH_TOKEN) to the token of this cluster",
    )


@cache
def _certificates() -> ssl.SSLContext:
    """Read once: that takes 18 ms of CPU, and a follower asks every second."""
    return httpx.create_ssl_context()


def _is_loopback(url: str) -> bool:
    """A proxy from the environment is for the world outside, never for this machine."""
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
