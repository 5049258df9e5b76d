"""As much of `kustomize build` as infra/kubernetes uses, so that overlays are tested without it.

Resources, image tags, merges into core kinds and JSON patches. Whatever else a kustomization.yaml
says is refused. Where kubectl is installed, test_overlays.py holds this against the real one.
"""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

KNOWN = {"apiVersion", "kind", "resources", "images", "patches"}

Resource = dict[str, Any]


def build(folder: Path) -> list[Resource]:
    """The resources an overlay or a base stands for."""
    settings = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    assert set(settings) <= KNOWN, f"{folder}: {set(settings) - KNOWN} is beyond this build"
    resources = [each for path in settings["resources"] for each in load(folder / path)]
    names = [identity(each) for each in resources]
    assert len(names) == len(set(names)), f"{folder}: a resource twice in {names}"
    for patch in settings.get("patches", []):
        apply(folder / patch["path"], patch.get("target"), resources)
    for image in settings.get("images", []):
        retag(resources, image["name"], image["newTag"])
    return resources


def load(path: Path) -> list[Resource]:
    """The resources of a file, or those of a folder with a kustomization.yaml of its own."""
    return build(path) if path.is_dir() else documents(path)


def documents(path: Path) -> list[Resource]:
    """Every YAML document of a file; anchors are resolved into copies."""
    text = path.read_text(encoding="utf-8")
    return [copy.deepcopy(each) for each in yaml.safe_load_all(text) if each is not None]


def identity(resource: Resource) -> tuple[str, str]:
    """Kind and name."""
    return resource["kind"], resource["metadata"]["name"]


def apply(path: Path, target: dict[str, str] | None, resources: list[Resource]) -> None:
    """Change the one resource that a patch names."""
    patch = yaml.safe_load(path.read_text(encoding="utf-8"))
    wanted = (target["kind"], target["name"]) if target else identity(patch)
    (resource,) = (each for each in resources if identity(each) == wanted)
    if target:
        for operation in patch:
            edit(resource, operation)
    else:
        merge(resource, patch)


def merge(resource: Resource, patch: Resource) -> None:
    """A strategic merge, of mappings only: what lists do depends on the kind."""
    for key, value in patch.items():
        if isinstance(value, dict):
            merge(resource.setdefault(key, {}), value)
        else:
            assert not isinstance(value, list), f"{key}: write a JSON patch for lists"
            resource[key] = value


def edit(resource: Resource, operation: dict[str, Any]) -> None:
    """One operation of a JSON patch (RFC 6902): add or replace."""
    *way, last = (part.replace("~1", "/") for part in operation["path"].split("/")[1:])
    place: Any = resource
    for part in way:
        place = place[int(part) if isinstance(place, list) else part]
    assert isinstance(place, dict), f"{operation['path']} does not end in a mapping"
    if operation["op"] == "replace":
        assert last in place, f"{operation['path']}: nothing there to replace"
    else:
        assert operation["op"] == "add", operation["op"]
    place[last] = operation["value"]


def retag(resources: list[Resource], name: str, tag: str) -> None:
    """Give every container of this image the tag."""
    found = False
    for container in containers(resources):
        if re.split("[:@]", container["image"])[0] == name:
            container["image"] = f"{name}:{tag}"
            found = True
    assert found, f"no container runs the image {name}"


def containers(node: Any) -> Iterator[Resource]:
    """Containers and init containers, wherever in a tree they are."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in {"containers", "initContainers"}:
                yield from value
            else:
                yield from containers(value)
    elif isinstance(node, list):
        for each in node:
            yield from containers(each)
