"""Every way a dashboard can fail is one of our errors, in time."""

import time

import httpx
import pytest

from raylora.cluster import transport
from raylora.cluster.transport import request
from raylora.errors import ExitCode, NotAuthorised, Unreachable


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (httpx.ConnectError("refused"), "cannot be reached"),
        (httpx.ConnectTimeout("slow"), "does not answer within 3 s"),
        (httpx.ReadTimeout("slow"), "says nothing"),
        (httpx.WriteTimeout("slow"), "broke the connection"),
        (httpx.ReadError("reset"), "broke the connection"),
        (httpx.RemoteProtocolError("garbage"), "broke the connection"),
        (httpx.ProxyError("proxy"), "broke the connection"),
        (httpx.DecodingError("gzip"), "broke the connection"),
    ],
)
def test_each_failure_of_the_http_client_is_mapped(
    failure: httpx.HTTPError, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> httpx.Response:
        raise failure

    monkeypatch.setattr(httpx.Client, "request", fail)
    with pytest.raises(Unreachable, match=says) as caught:
        request("GET", "http://head:8265/api/version", headers={})
    assert "http://head:8265" in caught.value.message
    assert caught.value.exit_code == ExitCode.UNREACHABLE


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_not_authorised(status: int, dashboard) -> None:
    url = dashboard(lambda *_: (status, "no"))
    with pytest.raises(NotAuthorised, match="wants a token") as caught:
        request("GET", f"{url}/api/version", headers={})
    assert caught.value.exit_code == ExitCode.NOT_AUTHORISED
    with pytest.raises(NotAuthorised, match="refuses the token") as caught:
        request("GET", f"{url}/api/version", headers={"Authorization": "Bearer secret"})
    assert "secret" not in str(caught.value)


def test_other_statuses_are_the_callers_business(dashboard) -> None:
    assert request("GET", dashboard(lambda *_: (500, "x")), headers={}).status_code == 500


def test_a_silent_head_is_given_up_in_time(silent_dashboard: str) -> None:
    began = time.monotonic()
    with pytest.raises(Unreachable, match="says nothing"):
        request("GET", f"{silent_dashboard}/api/version", headers={})
    assert time.monotonic() - began < transport.CONNECT_S + transport.READ_S


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert request("GET", dashboard(lambda *_: (200, "x")), headers={}).status_code == 200
