"""KubeRay's resources, in the base and in each overlay, against the schemas of its v1.7.0."""

import copy
import pkgutil
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from jsonschema import Draft7Validator
from ray.serve.schema import ServeDeploySchema
from tests.infra.kustomize import Resource, build, containers, identity

from raylora.config.compose import load_train
from raylora.config.train_spec import TrainSpec
from raylora.serve import application

OVERLAYS = ("base", "overlays/cpu", "overlays/gpu")
CLUSTER_SPEC: dict[str, Callable[[Resource], Any]] = {
    "RayCluster": lambda resource: resource["spec"],
    "RayJob": lambda resource: resource["spec"]["rayClusterSpec"],
    "RayService": lambda resource: resource["spec"]["rayClusterConfig"],
}


@pytest.fixture(params=OVERLAYS, scope="module")
def resources(request: pytest.FixtureRequest, infra: Path) -> dict[tuple[str, str], Resource]:
    """The resources of one overlay by kind and name."""
    return {identity(each): each for each in build(infra / "kubernetes" / request.param)}


@pytest.fixture(params=sorted(CLUSTER_SPEC), scope="module")
def ray_resource(
    request: pytest.FixtureRequest, resources: dict[tuple[str, str], Resource]
) -> Resource:
    """The one resource of each kind."""
    (found,) = (each for (kind, _), each in resources.items() if kind == request.param)
    return found


def test_valid(ray_resource: Resource, kuberay_schemas: dict[str, Any]) -> None:
    assert errors(ray_resource, kuberay_schemas) == []


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(lambda resource, spec: resource["spec"], id="spec"),
        pytest.param(lambda resource, spec: spec, id="cluster"),
        pytest.param(lambda resource, spec: spec["authOptions"], id="auth"),
        pytest.param(lambda resource, spec: spec["workerGroupSpecs"][0], id="workers"),
        pytest.param(lambda resource, spec: next(containers(spec)), id="container"),
    ],
)
def test_wrong_key_is_found(
    ray_resource: Resource,
    kuberay_schemas: dict[str, Any],
    place: Callable[[Resource, Any], Any],
) -> None:
    broken = copy.deepcopy(ray_resource)
    place(broken, CLUSTER_SPEC[broken["kind"]](broken))["imagePullPolicies"] = "Always"
    (error,) = errors(broken, kuberay_schemas)
    assert "imagePullPolicies" in error


def test_tokens_are_on(ray_resource: Resource) -> None:
    assert CLUSTER_SPEC[ray_resource["kind"]](ray_resource)["authOptions"] == {"mode": "token"}


def test_version_is_the_installed_one(ray_resource: Resource) -> None:
    assert CLUSTER_SPEC[ray_resource["kind"]](ray_resource)["rayVersion"] == ray.__version__


def test_job_runs_the_driver_on_the_mounted_spec(
    resources: dict[tuple[str, str], Resource],
) -> None:
    job = resources["RayJob", "raylora-train"]["spec"]
    *program, path = shlex.split(job["entrypoint"])
    assert program == ["python", "-m", "raylora.jobs.finetune"]
    head = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (mount,) = (each for each in head["containers"][0]["volumeMounts"] if each["name"] == "spec")
    (volume,) = (each for each in head["volumes"] if each["name"] == "spec")
    folder, _, file = path.rpartition("/")
    assert mount["mountPath"] == folder
    assert file in resources["ConfigMap", volume["configMap"]["name"]]["data"]


def test_training_fits_the_workers(resources: dict[tuple[str, str], Resource]) -> None:
    """The spec is a TrainSpec, keeps its files on the shared volume, and its workers have room."""
    spec = train_spec(resources)
    assert spec.data == load_train("quickstart").spec.data
    cluster = resources["RayJob", "raylora-train"]["spec"]["rayClusterSpec"]
    assert_shared(spec.outputs, cluster)
    assert spec.workers.most <= room_for(
        cluster, spec.workers.cpus_per_worker, spec.workers.gpus_per_worker
    )


def test_endpoint_fits_the_workers(resources: dict[tuple[str, str], Resource]) -> None:
    """The application is what Ray Serve accepts, its arguments a ServeSpec with room to run."""
    service = resources["RayService", "raylora"]["spec"]
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["serveConfigV2"]))
    (served,) = config.applications
    spec = application.read_spec(served.args["spec"])
    assert pkgutil.resolve_name(served.import_path) is application.build
    assert served.name == spec.name
    assert config.http_options.port == spec.port
    assert_shared(spec.outputs, service["rayClusterConfig"])
    assert spec.num_replicas <= room_for(
        service["rayClusterConfig"], spec.cpus_per_replica, spec.gpus_per_replica
    )


def test_both_use_the_server_of_the_base(resources: dict[tuple[str, str], Resource]) -> None:
    service = yaml.safe_load(resources["RayService", "raylora"]["spec"]["serveConfigV2"])
    (served,) = service["applications"]
    uri = train_spec(resources).tracking.uri
    port = resources["Service", "mlflow"]["spec"]["ports"][0]["port"]
    assert uri == f"http://mlflow:{port}"
    assert served["args"]["spec"]["tracking"]["uri"] == uri


def errors(resource: Resource, schemas: dict[str, Any]) -> list[str]:
    """What the schema of its kind finds wrong."""
    found = Draft7Validator(schemas[resource["kind"]]).iter_errors(resource)
    return [f"{error.json_path}: {error.message}" for error in found]


def train_spec(resources: dict[tuple[str, str], Resource]) -> TrainSpec:
    """What the RayJob trains."""
    text = resources["ConfigMap", "raylora-train"]["data"]["spec.yaml"]
    return TrainSpec.model_validate(yaml.safe_load(text))


def room_for(cluster: Any, cpus: float, gpus: float) -> int:
    """How many processes of this size the worker pods hold."""
    (group,) = cluster["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    fits = [float(limits["cpu"]) // cpus]
    if gpus:
        fits.append(limits.get("nvidia.com/gpu", 0) // gpus)
    return int(group["replicas"] * min(fits))


def assert_shared(outputs: str, cluster: Any) -> None:
    """Head and workers see the same volume at this path."""
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (mount,) = (
            each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "data"
        )
        assert outputs.startswith(f"{mount['mountPath']}/")
        claims = {each["name"]: each.get("persistentVolumeClaim") for each in pod["volumes"]}
        assert claims["data"] == {"claimName": "raylora-data"}
