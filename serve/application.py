"""The Ray Serve application of a ServeSpec."""

from pathlib import Path
from typing import Any

from ray import serve

from raylora.config.compose import read_resolved
from raylora.config.serve_spec import ServeSpec

INGRESS = "endpoint"
"""Name of the one deployment."""
STOP_S = 10.0
"""A replica that is told to stop may finish its requests for this long."""


def build(args: dict[str, Any]) -> serve.Application:
    """Make the application: import path of serveConfigV2, `raylora.serve.application:build`.

    args: {"spec": ...}, a resolved ServeSpec as a mapping or the path of its YAML.
    """
    spec = read_spec(args["spec"])
    # Loads torch, which the program that only asks for the application's name does not need.
    from raylora.serve.replica import Replica

    batching = spec.batching
    ingress: Any = serve.deployment(
        serve.ingress()(Replica),
        name=INGRESS,
        num_replicas=spec.num_replicas,
        ray_actor_options={"num_cpus": spec.cpus_per_replica, "num_gpus": spec.gpus_per_replica},
        # The endpoint itself counts and answers 429; Serve must not hold requests back before it.
        max_ongoing_requests=2 * (batching.max_batch_size + batching.max_queue),
        graceful_shutdown_timeout_s=STOP_S,
        graceful_shutdown_wait_loop_s=0.5,
        max_constructor_retry_count=3,
    )
    return ingress.bind(spec.model_dump(mode="json"))


def read_spec(given: ServeSpec | dict[str, Any] | str) -> ServeSpec:
    """The spec from any of the ways that `build` takes it."""
    if isinstance(given, ServeSpec):
        return given
    if isinstance(given, str):
        return read_resolved(Path(given), ServeSpec)
    return ServeSpec.model_validate(given)
