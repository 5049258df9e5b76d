"""What Ray Serve is told, and how many replicas the waiting tokens ask for; no cluster."""

import subprocess
import sys
from asyncio import run
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from tests.serve.http.asking import request

from raylora.config.compose import load_serve
from raylora.config.serve_spec import AutoscalingSpec, RollbackSpec, ServeSpec
from raylora.serve.application import build, read_spec
from raylora.serve.engine_thread import EngineThread
from raylora.serve.replica import told
from raylora.serve.scaling import QUEUED_TOKENS, QueuedTokens


def deployments(spec: ServeSpec, **options) -> dict[str, Any]:
    """By name: the ingress and, bound into it, the replicas."""
    ingress: Any = build({"spec": spec, **options})._bound_deployment
    replica = ingress.init_args[1]._bound_deployment
    return {deployment.name: deployment for deployment in (ingress, replica)}


def test_one_light_ingress_in_front_of_the_replicas():
    made = deployments(ServeSpec(num_replicas=3, cpus_per_replica=2), listens=True)
    assert made["replica"].num_replicas == 3
    assert made["replica"].ray_actor_options["num_cpus"] == 2
    assert made["ingress"].num_replicas == 1
    assert made["ingress"].ray_actor_options["num_cpus"] == 0
    # The address of the spec is the head's.
    assert "node:__internal_head__" in made["ingress"].ray_actor_options["resources"]


def test_behind_serves_proxies_the_ingress_may_be_anywhere():
    made = deployments(ServeSpec())
    assert made["ingress"].ray_actor_options["resources"] == {}
    assert made["ingress"].init_args[2] is False


def test_the_ingress_loads_no_model_packages():
    program = (
        "import sys, raylora.serve.ingress.ingress\n"
        "print([name for name in ('torch', 'transformers', 'mlflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_autoscaling_replaces_the_number_of_replicas():
    scaling = AutoscalingSpec(min_replicas=0, max_replicas=7, tokens_per_replica=100)
    config = deployments(ServeSpec(autoscaling=scaling))["replica"]._deployment_config
    told = config.autoscaling_config
    assert (told.min_replicas, told.max_replicas, told.initial_replicas) == (0, 7, 1)
    policy = told.policy.get_policy()(**told.policy.policy_kwargs)
    assert policy(replicas_that_told(a=150.0, b=151.0)) == (4, {})


def test_the_policy_runs_where_raylora_is_not_installed(tmp_path):
    config = deployments(ServeSpec(autoscaling=AutoscalingSpec()))["replica"]._deployment_config
    pickled = tmp_path / "policy"
    pickled.write_bytes(config.autoscaling_config.policy.get_serialized_policy_def())
    program = (
        "import sys; sys.modules['raylora'] = None\n"
        "import pickle; policy = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print(policy(per_replica=10).__call__)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(pickled)], capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("tokens", "replicas"), [(0, 0), (1, 1), (100, 1), (101, 2)])
def test_no_replica_has_more_than_its_tokens(tokens, replicas):
    policy = QueuedTokens(per_replica=100)
    assert policy(replicas_that_told(a=tokens))[0] == replicas


def test_a_replica_that_has_told_nothing_yet_is_not_taken_for_idle():
    policy = QueuedTokens(per_replica=100)
    assert policy(replicas_that_told())[0] == 0
    assert policy(replicas_that_told(a=None))[0] == 1
    assert policy(replicas_that_told(a=10.0, b=None, c=None))[0] == 3
    assert policy(replicas_that_told(a=1000.0, b=None))[0] == 10


def replicas_that_told(**tokens: float | None) -> SimpleNamespace:
    """What Serve's controller gives a policy; None for a replica that said nothing."""
    told = {replica: count for replica, count in tokens.items() if count is not None}
    return SimpleNamespace(
        aggregated_metrics={QUEUED_TOKENS: told} if told else None,
        running_replicas=list(tokens),
        current_num_replicas=len(tokens),
    )


def test_routes_and_autoscaling_are_set_from_the_command_line():
    overrides = ["routes.home={canary:next,weight:0.2}", "autoscaling={min_replicas:0}"]
    spec = load_serve("quickstart", overrides).spec
    assert (spec.routes["home"].canary, spec.routes["home"].weight) == ("next", 0.2)
    assert spec.autoscaling is not None
    assert spec.autoscaling.min_replicas == 0


def test_limits_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="max_replicas"):
        AutoscalingSpec(min_replicas=3, max_replicas=2)
    with pytest.raises(ValueError, match="window"):
        RollbackSpec(window=5, min_requests=6)
    with pytest.raises(ValueError, match="adapters_root"):
        read_spec({"adapters_root": "relative"})


def test_a_replica_whose_engine_has_failed_is_given_no_requests(endpoint):
    assert not told(endpoint)["failed"]
    endpoint.engine.stop()
    assert told(endpoint)["failed"]


def test_a_replica_whose_engine_hangs_is_given_no_requests(endpoint, engine):
    thread = EngineThread(engine, step_timeout_s=0.25)
    thread.start()
    endpoint = replace(endpoint, engine=thread)
    engine.may_step.clear()
    body = {"model": "tiny", "prompt": "hello", "stream": True}
    answer = run(request(endpoint, "POST", "/v1/completions", json=body))
    assert answer.status_code == 500
    assert "hangs" in answer.json()["error"]["message"]
    assert told(endpoint)["failed"]
    assert run(request(endpoint, "GET", "/healthz")).status_code == 503
