"""Jobs on a cluster: submit, watch, stop. The only user of Ray's job client."""

import contextlib
import shlex
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from raylora.cluster import capacity
from raylora.cluster import warm as warm_start
from raylora.cluster.bundle import Bundle
from raylora.cluster.capacity import Node
from raylora.cluster.connect import Cluster
from raylora.cluster.job_info import JobInfo, JobState
from raylora.cluster.log_lines import Lines
from raylora.cluster.transport import request
from raylora.errors import JobFailed, NotFound, RayloraError, Unreachable

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails

RUN_ID, NAME, PROGRAM = "raylora.run_id", "raylora.name", "raylora.program"
"""Keys of a job's metadata."""
RETRY_S = 60.0
"""How long a follower bears a silent network before it gives up."""
SOON_S = 0.3
"""A job that has no log yet is looked at again after this long."""
AGAIN_S = 1.0
"""A connection that broke is made again after this long."""
AGENT_S = 30.0
"""A head that has just started answers before it can take jobs."""
STOP_S = 40.0
"""Limit for a stop: the head gives the driver 15 s between SIGTERM and SIGKILL."""

ENVIRONMENT = {
    # Ray drops a worker's line if it looks like another one's but for the numbers: as steps do.
    "RAY_DEDUP_LOGS": "0",
    "RAY_COLOR_PREFIX": "0",
    # A dead worker is seen after 1 s, not 2; one that hangs after 2 minutes, not 10.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "120",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
"""Variables of every job. Anyone with the token can read them: never a secret."""


class JobClient:
    """Jobs of one cluster. Raises Unreachable, NotAuthorised, NotFound, RayloraError."""

    def __init__(self, cluster: Cluster) -> None:
        # Here and not above: it imports ray, and `raylora submit --help` must not.
        from raylora.cluster.sdk import LimitedClient

        self._cluster = cluster
        self._sdk = LimitedClient(cluster)

    def submit(
        self,
        program: str,
        args: Sequence[str],
        files: Bundle,
        *,
        name: str = "",
        run_id: str | None = None,
        job_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        warm: bool = False,
    ) -> str:
        """Start `python -m program args...` in the bundle's folder; return the job's id.

        job_id: chosen by the caller, and at most one job ever has it; a random one if None. warm:
        the job needs neither GPU nor model hub, so its processes may be forks of a warm one.
        """
        chosen = job_id or run_id or f"raylora-{uuid.uuid4().hex[:12]}"
        known = {RUN_ID: run_id, NAME: name, PROGRAM: program}
        variables = {**ENVIRONMENT, **(env or {})}
        runtime_env: dict[str, object] = {
            "working_dir": str(files.working_dir),
            "py_modules": [str(files.package)],
            "env_vars": variables,
        }
        python = self._cluster.warm_python if warm else ()
        if python:
            runtime_env["py_executable"] = shlex.join(python)
            variables |= warm_start.JOB_ENVIRONMENT
        # The head runs the entrypoint in a shell, so the quoting is not decoration.
        entrypoint = shlex.join([*(python or ("python",)), "-m", program, *args])
        described = {**{key: value for key, value in known.items() if value}, **(metadata or {})}
        deadline = time.monotonic() + AGENT_S
        while True:
            try:
                return self._sdk.submit_job(
                    entrypoint=entrypoint,
                    submission_id=chosen,
                    runtime_env=runtime_env,
                    metadata=described,
                )
            except Unreachable:
                # The answer is lost; the job may be there. Its id tells.
                if self._exists(chosen):
                    return chosen
                raise
            except RayloraError as error:
                if "No available agent" not in error.message or time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    def list(self) -> Sequence[JobInfo]:
        """Return the submitted jobs of the cluster, the newest first."""
        submitted = [_info(job) for job in self._sdk.list_jobs() if job.submission_id]
        epoch = datetime.fromtimestamp(0, UTC)
        return sorted(submitted, key=lambda job: job.started or epoch, reverse=True)

    def status(self, job_id: str) -> JobInfo:
        """Return one job."""
        return _info(self._sdk.get_job_info(job_id))

    def logs(self, job_id: str) -> str:
        """Return all the driver has written so far, workers' lines included."""
        return self._sdk.get_job_logs(job_id)

    def follow(self, job_id: str) -> Iterator[str]:
        """Yield the job's log lines from the first on, until the job has ended.

        A lost connection is taken up again where it broke, however often; after RETRY_S in which
        the cluster does not even tell the job's state, the loss is an error.
        """
        self.status(job_id)  # a job that does not exist is said at once
        lines = Lines()
        silent_since: float | None = None
        while True:
            try:
                broken = True
                with contextlib.suppress(Unreachable):
                    for chunk in self._sdk.tail(job_id, skip=lines.characters):
                        silent_since = None
                        yield from lines.feed(chunk)
                    broken = False
                # Some networks cut what says nothing for a minute, as a job may.
                if self.status(job_id).state.terminal:
                    yield from lines.feed(self._log_beyond(job_id, lines.characters))
                    yield from lines.rest()
                    return
                silent_since = None
            except Unreachable:
                broken = True
                if silent_since is None:
                    silent_since = time.monotonic()
                if time.monotonic() - silent_since > RETRY_S:
                    raise
            time.sleep(AGAIN_S if broken else SOON_S)

    def stop(self, job_id: str) -> JobInfo:
        """Send SIGTERM to the job and wait until it has ended; an ended job stays as it is.

        Raises JobFailed where it does not end within STOP_S.
        """
        self.request_stop([job_id], wait_s=STOP_S)
        info = self.status(job_id)
        if not info.state.terminal:
            raise JobFailed(
                f"job {job_id} is still {info.state} {STOP_S:g} s after it was told to stop",
                hint=f"raylora jobs logs {job_id}",
            )
        return info

    def request_stop(self, job_ids: Sequence[str], *, wait_s: float) -> None:
        """Send SIGTERM to all of them, then give them `wait_s` together to end."""
        for job_id in job_ids:
            self._sdk.stop_job(job_id)
        deadline = time.monotonic() + wait_s
        for job_id in job_ids:
            while not self.status(job_id).state.terminal and time.monotonic() < deadline:
                time.sleep(0.3)

    def capacity(self) -> dict[str, float]:
        """Return what all living nodes have together, such as {"CPU": 8.0, "GPU": 1.0}."""
        return capacity.totals(self.nodes())

    def nodes(self) -> Sequence[Node]:
        """Return the living nodes with what each has in all."""
        return nodes(self._cluster)

    def _log_beyond(self, job_id: str, characters: int) -> str:
        """What a stream has left out that ended before the log: a busy node is slow to send."""
        try:
            return self.logs(job_id)[characters:]
        except Unreachable:
            raise
        except RayloraError:
            return ""  # the node that has the log is gone, and with it the rest

    def _exists(self, job_id: str) -> bool:
        try:
            self.status(job_id)
        except NotFound:
            return False
        return True


def nodes(cluster: Cluster) -> Sequence[Node]:
    """Return the living nodes of a cluster; needs no ray."""
    url = f"{cluster.dashboard_url}/api/v0/nodes"
    answer = request("GET", url, headers=cluster.headers)
    if answer.status_code != 200:
        raise RayloraError(f"{url} answered {answer.status_code}: {answer.text[:200]}")
    listed = answer.json()["data"]["result"]["result"]
    return [
        Node(node["node_ip"], node["resources_total"])
        for node in listed
        if node["state"] == "ALIVE"
    ]


def _info(details: "JobDetails") -> JobInfo:
    metadata = details.metadata or {}
    return JobInfo(
        job_id=details.submission_id or "",
        state=JobState(details.status.value),
        name=metadata.get(NAME, ""),
        run_id=metadata.get(RUN_ID),
        program=metadata.get(PROGRAM, ""),
        message=details.message or "",
        started=_moment(details.start_time),
        ended=_moment(details.end_time),
        driver_exit_code=details.driver_exit_code,
        metadata=metadata,
    )


def _moment(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
