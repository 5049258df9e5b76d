"""What Ray says of a sandbox's cluster, asked in a process of its own with the cluster's token."""

import json
import sys
from typing import Any

from benchmarks.bars.sandbox import Sandbox, run

CONNECTED = """
import json, os, time
from raylora.cluster import head
state = head.running()
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=state.token_path)
import ray
ray.init(address=state.gcs_address, log_to_driver=False, logging_level="error")
from ray.util import state as states
"""
ANSWERED = "\nprint(json.dumps(answer))\n"

BUSY_CPUS = """
for _ in range(20):
    answer = ray.cluster_resources()["CPU"] - ray.available_resources().get("CPU", 0)
    if answer == 0:
        break
    time.sleep(1)
"""

HELD = """
def held():
    groups = states.list_placement_groups(address=state.dashboard_url, limit=10000)
    actors = states.list_actors(address=state.dashboard_url, limit=10000)
    return {
        "placement groups": sum(group.state != "REMOVED" for group in groups),
        "actors": sum(actor.state != "DEAD" for actor in actors),
        "CPUs": ray.cluster_resources()["CPU"] - ray.available_resources().get("CPU", 0),
    }
for _ in range(20):
    answer = held()
    if not any(answer.values()):
        break
    time.sleep(1)
"""

DRIVERS = """
answer = {
    job.submission_id: int(job.driver_info.pid)
    for job in states.list_jobs(address=state.dashboard_url)
    if job.submission_id and job.driver_info
}
"""


def busy_cpus(box: Sandbox) -> float:
    """CPUs that are promised to somebody, once 20 s have passed at most."""
    return float(_look(box, BUSY_CPUS))


def held(box: Sandbox) -> dict[str, float]:
    """Placement groups, actors and CPUs that somebody still has, once 20 s have passed at most."""
    return {str(what): float(count) for what, count in _look(box, HELD).items()}


def driver_pids(box: Sandbox) -> dict[str, int]:
    """By id of the job: the process that drives it."""
    return {str(job): int(pid) for job, pid in _look(box, DRIVERS).items()}


def cluster_environment(box: Sandbox) -> dict[str, str]:
    """What lets a program of Ray's join the cluster of a sandbox, or submit to it."""
    head: dict[str, Any] = json.loads((box.home / "head/state.json").read_text(encoding="utf-8"))
    return box.environment | {
        "RAY_ADDRESS": str(head["gcs_address"]),
        "RAY_API_SERVER_ADDRESS": str(head["dashboard_url"]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(head["token_path"]),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONUNBUFFERED": "1",
    }


def _look(box: Sandbox, program: str) -> Any:
    command = (sys.executable, "-c", CONNECTED + program + ANSWERED)
    done = run(command, box.folder, box.environment, 120).expect()
    return json.loads(done.stdout.splitlines()[-1])
