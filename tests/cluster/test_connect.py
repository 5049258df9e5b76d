"""An address names a dashboard; what it needs to be let in is found without side effects."""

from pathlib import Path

import pytest

from raylora.cluster.connect import connect, dashboard_url
from raylora.errors import ExitCode, InvalidConfig, NotAuthorised, Unreachable


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("http://head:8265", "http://head:8265"),
        ("http://head:8265/", "http://head:8265"),
        ("head", "http://head:8265"),
        ("head:80", "http://head:80"),
        ("https://ray.example.com", "https://ray.example.com"),
        ("https://example.com/ray/", "https://example.com/ray"),
        ("http://[::1]:8265", "http://[::1]:8265"),
    ],
)
def test_an_address_becomes_a_dashboard_url(address: str, url: str) -> None:
    assert dashboard_url(address) == url


@pytest.mark.parametrize("address", ["ray://head:10001", "", "http://", "head:port", "ftp://h"])
def test_what_is_no_dashboard_address_says_what_to_write(address: str) -> None:
    with pytest.raises(InvalidConfig, match="Write http://HOST:8265") as caught:
        dashboard_url(address)
    assert caught.value.exit_code == ExitCode.INVALID


@pytest.fixture
def guarded(dashboard) -> str:
    """Wants the token `right`."""

    def answer(_method: str, _path: str, authorization: str | None) -> tuple[int, object]:
        if authorization is None:
            return 401, "missing"
        return (200, {"ray_version": "2"}) if authorization == "Bearer right" else (403, "bad")

    return dashboard(answer)


@pytest.fixture
def no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without a token of their own; gives the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_token_is_found_where_ray_looks_for_it(
    guarded: str, no_token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotAuthorised, match="none was found"):
        connect(guarded)

    (no_token / ".ray").mkdir()
    (no_token / ".ray" / "auth_token").write_text("right\n")
    assert connect(guarded).headers == {"Authorization": "Bearer right"}

    elsewhere = no_token / "wrong"
    elsewhere.write_text("wrong")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(elsewhere))
    with pytest.raises(NotAuthorised, match="refuses the token"):
        connect(guarded)

    monkeypatch.setenv("RAY_AUTH_TOKEN", "right")
    assert not connect(guarded).is_local


def test_a_token_file_that_is_not_there_is_named(
    guarded: str, no_token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(no_token / "gone"))
    with pytest.raises(NotAuthorised, match="gone"):
        connect(guarded)


def test_the_token_is_not_in_what_a_cluster_prints(
    guarded: str, no_token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "right")
    assert "right" not in repr(connect(guarded))


def test_nothing_is_started_where_that_is_not_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path))
    with pytest.raises(Unreachable) as caught:
        connect(None, start=False)
    assert caught.value.hint == "raylora cluster up"


@pytest.mark.parametrize("answer", [(404, "no such page"), (500, {}), (200, {"status": "ok"})])
def test_what_is_no_ray_head_is_said_to_be_none(answer, dashboard, no_token: Path) -> None:
    url = dashboard(lambda *_: answer)
    with pytest.raises(Unreachable, match=f"no Ray dashboard.*{answer[0]}") as caught:
        connect(url)
    assert caught.value.exit_code == ExitCode.UNREACHABLE
