"""The overlays as a whole: core kinds valid, names that meet, no root, no secret in clear."""

import copy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from tests.infra.kustomize import Resource, build, containers, identity

OVERLAYS = ("base", "overlays/cpu", "overlays/gpu")
SECRET_WORDS = ("PASSWORD", "SECRET", "ACCESS_KEY", "TOKEN")


@pytest.fixture(params=OVERLAYS, scope="module")
def overlay(request: pytest.FixtureRequest, infra: Path) -> Path:
    """The folder of one kustomization."""
    return infra / "kubernetes" / request.param


@pytest.fixture(scope="module")
def resources(overlay: Path) -> list[Resource]:
    """What it builds."""
    return build(overlay)


def test_core_kinds_are_valid(resources: list[Resource]) -> None:
    core = [each for each in resources if not each["apiVersion"].startswith("ray.io/")]
    assert {"ConfigMap", "Deployment", "NetworkPolicy", "Service", "StatefulSet"} <= {
        each["kind"] for each in core
    }
    for resource in core:
        validate(resource)


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "NetworkPolicy", "Service"])
def test_wrong_key_is_found(resources: list[Resource], kind: str) -> None:
    broken = copy.deepcopy(next(each for each in resources if each["kind"] == kind))
    broken["spec"]["replicaCount"] = 2
    with pytest.raises(kubernetes_validate.ValidationError, match="replicaCount"):
        validate(broken)


def test_every_file_is_used(infra: Path) -> None:
    """A manifest no kustomization names is never applied."""
    for file in (infra / "kubernetes").rglob("kustomization.yaml"):
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
        named = {*settings["resources"], *(each["path"] for each in settings.get("patches", []))}
        beside = {each.name for each in file.parent.glob("*.yaml")} - {file.name}
        assert beside == {name for name in named if name.endswith(".yaml")}


def test_kubectl_builds_the_same(overlay: Path) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip(
            "kubectl is not installed: overlays were built by tests/infra/kustomize.py only"
        )
    built = subprocess.run(
        [kubectl, "kustomize", str(overlay)], capture_output=True, check=True, text=True
    ).stdout
    theirs = {identity(each): each for each in yaml.safe_load_all(built)}
    assert theirs == {identity(each): each for each in build(overlay)}


def test_pods_run_without_rights(resources: list[Resource]) -> None:
    pods = [pod for resource in resources for pod in pod_specs(resource)]
    assert len(pods) >= 9
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["automountServiceAccountToken"] is False
    for container in containers(resources):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_secrets_are_referenced_never_written(resources: list[Resource]) -> None:
    assert all(resource["kind"] != "Secret" for resource in resources)
    for container in containers(resources):
        for variable in container.get("env", []):
            if any(word in variable["name"] for word in SECRET_WORDS):
                assert "secretKeyRef" in variable["valueFrom"], variable["name"]


def test_selectors_find_their_pods(resources: list[Resource]) -> None:
    """A Service or a policy whose labels match no pod does nothing, silently."""
    labels = [pod_labels for resource in resources for pod_labels in template_labels(resource)]
    for resource in resources:
        if resource["kind"] == "Service":
            selector = resource["spec"]["selector"]
            assert any(selector.items() <= each.items() for each in labels), identity(resource)
        elif resource["kind"] == "NetworkPolicy":
            selector = resource["spec"]["podSelector"]
            assert any(matches(selector, each) for each in labels), identity(resource)


def validate(resource: Resource) -> None:
    """Hold a resource against the newest Kubernetes schema there is, unknown keys refused."""
    kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


def pod_specs(node: Any) -> list[Any]:
    """Pod specifications, wherever in a tree they are."""
    if isinstance(node, list):
        return [pod for each in node for pod in pod_specs(each)]
    if not isinstance(node, dict):
        return []
    if "containers" in node:
        return [node]
    return [pod for each in node.values() for pod in pod_specs(each)]


def template_labels(node: Any) -> list[dict[str, str]]:
    """The labels of each pod template in a tree."""
    if isinstance(node, list):
        return [labels for each in node for labels in template_labels(each)]
    if not isinstance(node, dict):
        return []
    own = [node["template"]["metadata"]["labels"]] if "template" in node else []
    return own + [
        labels
        for key, each in node.items()
        if key != "template"
        for labels in template_labels(each)
    ]


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector picks a pod."""
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(rule["key"]) in rule["values"] for rule in selector.get("matchExpressions", [])
    )
