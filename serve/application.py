"""The Ray Serve application of a ServeSpec: an ingress, and replicas that generate."""

from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from raylora.cluster.applications import INGRESS
from raylora.config.compose import read_resolved
from raylora.config.serve_spec import ServeSpec

REPLICA = "replica"
"""Name of the deployment that generates."""
STOP_S = 10.0
"""A replica that is told to stop may finish its requests for this long."""
HEAD = {"node:__internal_head__": 0.001}
"""Ray's own resource of the head node, where the spec's address is."""


def build(args: dict[str, Any]) -> serve.Application:
    """Make the application: import path of serveConfigV2, `raylora.serve.application:build`.

    args: {"spec": ...}, a resolved ServeSpec as a mapping or the path of its YAML. With "listens"
    the ingress answers HTTP at the spec's address itself; else Serve's proxies do, at theirs.
    """
    spec = read_spec(args["spec"])
    listens = bool(args.get("listens", False))
    # Loads torch, which the program that only asks for the application's name does not need.
    from raylora.serve.ingress.ingress import Ingress
    from raylora.serve.replica import Replica

    document = spec.model_dump(mode="json")
    replica: Any = serve.deployment(
        Replica,
        name=REPLICA,
        ray_actor_options={"num_cpus": spec.cpus_per_replica, "num_gpus": spec.gpus_per_replica},
        max_constructor_retry_count=3,
        health_check_period_s=5.0,
        # Serve would write a line for each time the ingress asks for the address.
        logging_config={"enable_access_log": False},
        **_stopping(),
        **_size(spec),
    )
    ingress: Any = serve.deployment(
        serve.ingress()(Ingress),
        name=INGRESS,
        num_replicas=1,
        ray_actor_options={"num_cpus": 0, "resources": HEAD if listens else {}},
        # The replicas count and answer 429; Serve must not hold requests back before them.
        max_ongoing_requests=100_000,
        max_constructor_retry_count=3,
        **_stopping(),
    )
    return ingress.bind(document, replica.bind(document, STOP_S), listens, STOP_S)


def _stopping() -> dict[str, Any]:
    """Serve's own limit is later than ours, so that we say ourselves what broke off."""
    return {"graceful_shutdown_timeout_s": STOP_S + 2, "graceful_shutdown_wait_loop_s": 0.5}


def _size(spec: ServeSpec) -> dict[str, Any]:
    scaling = spec.autoscaling
    if scaling is None:
        return {"num_replicas": spec.num_replicas}
    policy = AutoscalingPolicy(
        policy_function="raylora.serve.scaling:QueuedTokens",
        policy_kwargs={"per_replica": scaling.tokens_per_replica},
    )
    config = AutoscalingConfig(
        min_replicas=scaling.min_replicas,
        max_replicas=scaling.max_replicas,
        initial_replicas=max(1, scaling.min_replicas),
        upscale_delay_s=scaling.up_after_s,
        downscale_delay_s=scaling.down_after_s,
        policy=policy,
    )
    return {"autoscaling_config": config}


def read_spec(given: ServeSpec | dict[str, Any] | str) -> ServeSpec:
    """The spec from any of the ways that `build` takes it."""
    if isinstance(given, ServeSpec):
        return given
    if isinstance(given, str):
        return read_resolved(Path(given), ServeSpec)
    return ServeSpec.model_validate(given)
