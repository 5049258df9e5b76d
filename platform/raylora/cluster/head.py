"""The local head: a Ray cluster of one node that commands share and none of them owns."""

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil

from raylora.cluster import head_state, processes, warm
from raylora.cluster.authentication import bearer, write_token
from raylora.cluster.head_state import HeadState
from raylora.cluster.ports import LOOPBACK, free_ports, node_address
from raylora.cluster.transport import request
from raylora.config.places import cache, home
from raylora.errors import RayloraError, Unreachable

START_S = 90.0
"""Limit for a start; 6 to 9 s is what an idle two-core machine needs."""
STOP_S = 6.0
"""Grace for Ray's own shutdown (about 4 s) before what is left is killed."""
PORTS = ("gcs", "dashboard", "client_server", "autoscaler_metrics", "dashboard_metrics")
ATTEMPTS = 3
"""A port can be taken between choosing it and listening on it; then others are chosen."""
FOREIGN = frozenset(
    {"RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_JOB_CONFIG_JSON_ENV_VAR"}
)
"""Variables that would lead this head's processes to another cluster."""
OBJECT_STORE_BYTES = 500_000_000
"""Rows and checkpoints go through files; Ray's default would be 30 % of the memory."""


def ensure() -> HeadState:
    """Return the running head, started if there is none. Two commands that race get the same."""
    if state := running():
        return state
    with _lock():
        if state := running():
            return state
        _clear_away(head_state.read())
        return _start()


def running() -> HeadState | None:
    """Return the head if one is up, else None; starts nothing."""
    state = head_state.read()
    return state if state and state.ready and state.process else None


def stop() -> bool:
    """End the head and all its processes; False where there was none.

    Raises RayloraError naming the processes where one survives even SIGKILL.
    """
    with _lock():
        state = head_state.read()
        _clear_away(state)
        return state is not None


def _start() -> HeadState:
    for attempt in range(1, ATTEMPTS + 1):
        state = _launch()
        try:
            if _wait_until_ready(state):
                ready = state.made_ready()
                head_state.write(ready)
                return ready
        except BaseException:
            # Ctrl-C during the start, too: what nobody has been told of must not stay.
            _clear_away(state)
            raise
        log = _tail(Path(state.log))
        _clear_away(state)
        if attempt == ATTEMPTS:
            raise Unreachable(
                f"the local Ray cluster stopped while it started:\n{log}",
                hint=f"the whole log is in {state.log}",
            )
    raise AssertionError("unreachable: the loop returns or raises")


def _launch() -> HeadState:
    places = head_state.places()
    head_id = uuid.uuid4().hex
    write_token(places.token)
    # In /tmp and short: Ray puts sockets 70 characters below it, and their limit is 107.
    short = "/tmp" if Path("/tmp").is_dir() else None
    temp_dir = Path(tempfile.mkdtemp(prefix="raylora-", dir=short)).resolve()
    ports: dict[str, int] = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    environment = _environment(ports, head_id, places.token)
    process = processes.start_detached(
        _command(ports, temp_dir), env=environment, cwd=temp_dir, log=places.log
    )
    state = HeadState(
        id=head_id,
        pid=process.pid,
        create_time=process.create_time(),
        dashboard_url=f"http://{LOOPBACK}:{ports['dashboard']}",
        gcs_address=f"{node_address()}:{ports['gcs']}",
        ports=ports,
        token_path=str(places.token),
        temp_dir=str(temp_dir),
        log=str(places.log),
    )
    head_state.write(state)
    warm.start(process, temp_dir, environment, places.warm_log)
    return state


def _command(ports: dict[str, int], temp_dir: Path) -> list[str]:
    # Port 0: the operating system gives the port when Ray binds it and no one can be faster.
    # GCS, dashboard and client server have to be told theirs.
    given = ["node-manager", "object-manager", "dashboard-agent-grpc", "dashboard-agent-listen"]
    given += ["runtime-env-agent", "min-worker", "max-worker"]
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        f"--node-ip-address={node_address()}",
        f"--port={ports['gcs']}",
        f"--dashboard-host={LOOPBACK}",
        f"--dashboard-port={ports['dashboard']}",
        f"--ray-client-server-port={ports['client_server']}",
        *(f"--{name}-port=0" for name in given),
        "--metrics-export-port=0",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        # One level down: Ray opens its own folder to everyone, and there lie logs and data.
        f"--temp-dir={temp_dir / 'ray'}",
        "--disable-usage-stats",
        "--log-style=record",
    ]


def _environment(ports: dict[str, int], head_id: str, token: Path) -> dict[str, str]:
    # Drivers inherit this, so what the first command had in its environment, all jobs have.
    inherited = {key: value for key, value in os.environ.items() if key not in FOREIGN}
    return inherited | {
        processes.MARKER: head_id,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        # A cold process for each CPU when the first job comes, which no job that starts warm uses.
        "RAY_prestart_worker_first_driver": "0",
        "RAY_enable_worker_prestart": "0",
        # Without it a stop waits 30 s for actors that Ray Train leaves alive.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # Ray gives a stopped job 3 s before SIGKILL: too short to close an MLflow run.
        "RAY_JOB_STOP_WAIT_TIME_S": "15",
        "AUTOSCALER_METRIC_PORT": str(ports["autoscaler_metrics"]),
        "DASHBOARD_METRIC_PORT": str(ports["dashboard_metrics"]),
        "RAYLORA_HOME": str(home()),
        "RAYLORA_CACHE": str(cache()),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def _wait_until_ready(state: HeadState) -> bool:
    """Poll until a node is alive behind the dashboard; False where the process ended."""
    headers = bearer(Path(state.token_path))
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if state.process is None:
            return False
        with contextlib.suppress(Unreachable):
            answer = request("GET", f"{state.dashboard_url}/api/v0/nodes", headers=headers)
            if answer.status_code == 200 and '"ALIVE"' in answer.text:
                return True
        time.sleep(0.1)
    raise Unreachable(
        f"the local Ray cluster did not come up within {START_S:g} s",
        hint=f"its log is in {state.log}",
    )


def _clear_away(state: HeadState | None) -> None:
    """End what is left of a head, whether it runs, hangs, or died and left children behind."""
    if state is None:
        return
    temp_dir = Path(state.temp_dir)
    head = state.process
    # Before the end of the head: afterwards its children can no longer be told by descent.
    children = processes.family(state.id, temp_dir, head)
    survivors = processes.end([head] if head else [], grace_s=STOP_S)
    survivors += _end_children(children)
    survivors += _end_children(processes.family(state.id, temp_dir, None))
    if survivors:
        listed = ", ".join(str(process.pid) for process in survivors)
        raise RayloraError(f"processes of the local cluster do not end: {listed}")
    shutil.rmtree(temp_dir, ignore_errors=True)
    head_state.forget()


def _end_children(children: list[psutil.Process]) -> list[psutil.Process]:
    return processes.end(filter(processes.is_alive, children), grace_s=1.0)


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """One command at a time starts or stops the head."""
    deadline = time.monotonic() + START_S + STOP_S
    descriptor = os.open(head_state.places().lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while not _locked(descriptor):
            if time.monotonic() > deadline:
                raise Unreachable(
                    "another raylora command is still starting or stopping the local cluster",
                    hint="see whether one hangs; ending it frees the lock",
                )
            time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _tail(log: Path, lines: int = 3) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
