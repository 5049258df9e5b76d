"""`python -m raylora.serve.up spec.yaml`: deploy an endpoint, on the cluster this runs on.

Runs as a Ray Job. The application is detached: it stays when the job has ended, and its replicas
have the job's runtime_env, so the package they import is the one that was staged for the job.
"""

import sys
import time
from pathlib import Path

import httpx
from ray import serve

from raylora.cluster.events import ErrorEvent, NoticeEvent, StageEvent, emit
from raylora.config.compose import read_resolved
from raylora.config.key_file import read_keys
from raylora.config.serve_spec import ServeSpec
from raylora.errors import RayloraError, Unreachable
from raylora.serve.application import build
from raylora.tracking.adapters.reference import is_run
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.adapters.version import QUANTIZATION_TAG
from raylora.tracking.location import tracking_uri

ANSWER_S = 20.0
"""Longest wait for the first answer once Serve says that the application runs."""


def main(arguments: list[str]) -> int:
    """Deploy and say what happens, one event a line; 1 if the endpoint is not up at the end."""
    spec = read_resolved(Path(arguments[0]), ServeSpec)
    try:
        up(spec)
    except RayloraError as error:
        emit(ErrorEvent(error.message, error.hint))
        return int(error.exit_code)
    return 0


def up(spec: ServeSpec) -> None:
    """Start Serve if need be, deploy the application and wait until it answers."""
    if spec.keys is not None:
        found = len(read_keys(Path(spec.keys)).keys)
        emit(StageEvent("serve", f"{found} keys in {spec.keys}"))
    for adapter in filter(lambda adapter: not is_run(adapter), spec.adapters):
        version = Registry(tracking_uri(spec.tracking, spec.outputs)).resolve(adapter)
        emit(StageEvent("serve", f"{adapter} is {version}"))
        other = spec.model.stored_otherwise(str(version), version.tags.get(QUANTIZATION_TAG))
        if other is not None:
            emit(NoticeEvent(other))
    emit(StageEvent("serve", f"starting {spec.name} on {spec.host}:{spec.port}"))
    # The ingress listens itself; Serve only keeps the address, for those who ask where it is.
    serve.start(proxy_location="Disabled", http_options={"host": spec.host, "port": spec.port})
    try:
        serve.run(build({"spec": spec, "listens": True}), name=spec.name, route_prefix="/")
    except RuntimeError as error:
        raise RayloraError(
            f"the application {spec.name} did not start: {error}",
            hint="raylora serve status; the replica's log has the traceback",
        ) from error
    wait_until_healthy(spec)
    emit(StageEvent("done", f"{answering_url(spec)}/v1"))


def answering_url(spec: ServeSpec) -> str:
    """Where this machine reaches the endpoint; 0.0.0.0 listens everywhere and is no address."""
    host = "127.0.0.1" if spec.host in ("0.0.0.0", "::") else spec.host
    return f"http://{host}:{spec.port}"


def wait_until_healthy(spec: ServeSpec) -> None:
    """Return once the endpoint answers at the spec's address."""
    url = f"{answering_url(spec)}/healthz"
    deadline = time.monotonic() + ANSWER_S
    with httpx.Client(trust_env=False, timeout=ANSWER_S) as client:
        while True:
            try:
                if client.get(url).is_success:
                    return
                reason = "another server is there"
            except httpx.HTTPError as error:
                reason = str(error)
            if time.monotonic() > deadline:
                raise Unreachable(
                    f"the application runs and {url} does not answer: {reason}",
                    hint="Ray Serve keeps the address it was started with: raylora serve down, "
                    "then raylora serve up; or another process has the port: set port=",
                )
            time.sleep(0.2)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
