"""Ray Serve's applications on a cluster, through the dashboard's REST interface; needs no ray."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from raylora.cluster.connect import Cluster
from raylora.cluster.transport import request
from raylora.errors import RayloraError

INGRESS = "ingress"
"""Name of the deployment that answers HTTP; the others' replicas generate."""
READ_S = 60.0
"""The first question makes the dashboard import Serve, and a shutdown waits for the replicas."""


class ApplicationState(StrEnum):
    """Ray Serve's ApplicationStatus."""

    NOT_STARTED = "NOT_STARTED"
    DEPLOYING = "DEPLOYING"
    DEPLOY_FAILED = "DEPLOY_FAILED"
    RUNNING = "RUNNING"
    UNHEALTHY = "UNHEALTHY"
    DELETING = "DELETING"

    @property
    def is_leaving(self) -> bool:
        """Whether it frees its route by itself."""
        return self is ApplicationState.DELETING


@dataclass(frozen=True)
class Application:
    """One application."""

    name: str
    state: ApplicationState
    message: str
    replicas: int
    """Replicas that generate."""
    deployed: datetime | None


@dataclass(frozen=True)
class ServeStatus:
    """Serve on one cluster; host and port are None where it does not run."""

    host: str | None
    port: int | None
    applications: tuple[Application, ...]

    @property
    def url(self) -> str | None:
        """Where a client on the head's machine reaches the endpoint."""
        if self.host is None:
            return None
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{host}:{self.port}"

    def find(self, name: str) -> Application | None:
        """The application of this name."""
        return next((found for found in self.applications if found.name == name), None)


def status(cluster: Cluster) -> ServeStatus:
    """What Serve runs. Raises Unreachable, NotAuthorised."""
    answer = _call(cluster, "GET").json()
    options: dict[str, Any] = answer.get("http_options") or {}
    runs = bool(answer.get("controller_info")) and bool(options)
    return ServeStatus(
        host=options["host"] if runs else None,
        port=options["port"] if runs else None,
        applications=tuple(
            _application(name, details) for name, details in answer["applications"].items()
        ),
    )


def shut_down(cluster: Cluster) -> None:
    """Remove all applications and stop Serve itself, so that none of its processes remains."""
    _call(cluster, "DELETE")


def _call(cluster: Cluster, method: str) -> Any:
    url = f"{cluster.dashboard_url}/api/serve/applications/"
    answer = request(method, url, headers=cluster.headers, read_s=READ_S)
    if answer.status_code != 200:
        raise RayloraError(f"{method} {url} answered {answer.status_code}: {answer.text[:300]}")
    return answer


def _application(name: str, details: dict[str, Any]) -> Application:
    deployed = details.get("last_deployed_time_s")
    return Application(
        name=name,
        state=ApplicationState(details["status"]),
        message=details.get("message") or "",
        replicas=sum(
            replica["state"] == "RUNNING"
            for part, deployment in details["deployments"].items()
            if part != INGRESS
            for replica in deployment["replicas"]
        ),
        deployed=datetime.fromtimestamp(deployed, UTC) if deployed else None,
    )
