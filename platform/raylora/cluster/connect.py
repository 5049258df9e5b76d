"""Find a cluster: the local head, or the one an address names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from raylora.cluster import head, warm
from raylora.cluster.authentication import ambient_bearer, bearer
from raylora.cluster.head_state import HeadState
from raylora.cluster.transport import request
from raylora.errors import InvalidConfig, Problem, Unreachable

DASHBOARD_PORT = 8265


@dataclass(frozen=True)
class Cluster:
    """Where a cluster is and what to send with each request."""

    dashboard_url: str
    gcs_address: str | None
    """For ray.init on the same machine; None for a cluster reached through its dashboard only."""
    is_local: bool
    """Whether it is the local head: same files, same user, same machine."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    warm_python: tuple[str, ...] = ()
    """What starts quicker than `python` and does the same; empty where there is no such thing."""


def connect(address: str | None, *, start: bool = True) -> Cluster:
    """Return a cluster that answers.

    address: dashboard URL, or None for the local head, which is started if it is not up (or is an
    error, with start=False). Raises Unreachable within 8 s, NotAuthorised, InvalidConfig.
    """
    cluster = _local(start) if address is None else _named(address)
    answer = request("GET", f"{cluster.dashboard_url}/api/version", headers=cluster.headers)
    if '"ray_version"' not in answer.text:
        raise Unreachable(
            f"what answers at {cluster.dashboard_url} is no Ray dashboard (/api/version gave "
            f"status {answer.status_code})",
            hint="give the address of the head's dashboard, whose port is 8265 by default",
        )
    return cluster


def _local(start: bool) -> Cluster:
    state = head.ensure() if start else head.running()
    if state is None:
        raise Unreachable("no local cluster is running", hint="raylora cluster up")
    return _of_head(state)


def _named(address: str) -> Cluster:
    url = dashboard_url(address)
    state = head.running()
    if state is not None and state.dashboard_url == url:
        return _of_head(state)
    return Cluster(url, gcs_address=None, is_local=False, headers=ambient_bearer())


def _of_head(state: HeadState) -> Cluster:
    return Cluster(
        state.dashboard_url,
        state.gcs_address,
        is_local=True,
        headers=bearer(Path(state.token_path)),
        warm_python=warm.python(Path(state.temp_dir)),
    )


def dashboard_url(address: str) -> str:
    """Return the address as scheme://host:port; host alone gets http and Ray's port 8265."""
    parts = urlsplit(address if "://" in address else f"http://{address}")
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
        raise InvalidConfig(
            [
                Problem(
                    "--address",
                    f"{address!r} is no dashboard address",
                    "Write http://HOST:8265: the address of the Ray dashboard, not ray:// and "
                    "not the GCS port",
                )
            ]
        )
    # With https something stands before the dashboard and its port is the scheme's own.
    default = f":{DASHBOARD_PORT}" if parts.scheme == "http" and port is None else ""
    return f"{parts.scheme}://{parts.netloc}{default}{parts.path.rstrip('/')}"
