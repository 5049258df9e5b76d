"""The compose file, the `ray up` file, and the commands both of them and the manifests start."""

import copy
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import ray
import yaml
from jsonschema import Draft7Validator
from mlflow.cli import cli as mlflow_cli
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli as ray_cli
from tests.infra.kustomize import build, containers

CHECK = Path(sys.executable).with_name("check-jsonschema")


@pytest.fixture(scope="module")
def compose(infra: Path) -> dict[str, Any]:
    """The tracking server on one machine."""
    return yaml.safe_load((infra / "compose" / "compose.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def ray_up(infra: Path) -> dict[str, Any]:
    """The cluster for `ray up`."""
    return yaml.safe_load((infra / "ray" / "cluster.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def ray_up_schema() -> Draft7Validator:
    """Ray's own schema of that file, from the wheel."""
    path = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    return Draft7Validator(json.loads(path.read_text(encoding="utf-8")))


def test_compose_is_valid(compose: dict[str, Any], tmp_path: Path) -> None:
    assert compose_errors(compose, tmp_path) == ""


@pytest.mark.parametrize("service", [None, "mlflow"])
def test_wrong_key_in_compose_is_found(
    compose: dict[str, Any], tmp_path: Path, service: str | None
) -> None:
    broken = copy.deepcopy(compose)
    (broken["services"][service] if service else broken)["restarts"] = "always"
    assert "restarts" in compose_errors(broken, tmp_path)


def test_compose_keeps_secrets_outside_and_to_itself(compose: dict[str, Any], infra: Path) -> None:
    example = (infra / "compose" / ".env.example").read_text(encoding="utf-8")
    assert [line for line in example.splitlines() if "=" in line and not line.endswith("=")] == []
    for service in compose["services"].values():
        for name, value in service["environment"].items():
            if any(word in name for word in ("PASSWORD", "ACCESS_KEY")):
                assert value.startswith("${")
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_compose_builds_a_stage_of_the_image(compose: dict[str, Any], infra: Path) -> None:
    build_settings = compose["services"]["mlflow"]["build"]
    context = (infra / "compose" / build_settings["context"]).resolve()
    dockerfile = (context / build_settings["dockerfile"]).read_text(encoding="utf-8")
    assert f" AS {build_settings['target']}\n" in dockerfile


def test_ray_up_is_valid(ray_up: dict[str, Any], ray_up_schema: Draft7Validator) -> None:
    assert [error.message for error in ray_up_schema.iter_errors(ray_up)] == []
    validate_config(prepare_config(copy.deepcopy(ray_up)))


@pytest.mark.parametrize("place", [None, "docker", "auth"])
def test_wrong_key_in_ray_up_is_found(
    ray_up: dict[str, Any], ray_up_schema: Draft7Validator, place: str | None
) -> None:
    broken = copy.deepcopy(ray_up)
    (broken[place] if place else broken)["imagee"] = "raylora"
    (error,) = ray_up_schema.iter_errors(broken)
    assert "imagee" in error.message


def test_ray_up_carries_the_token_to_every_process(ray_up: dict[str, Any]) -> None:
    assert ray_up["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    assert "--env RAY_AUTH_MODE=token" in ray_up["docker"]["run_options"]
    for commands in (ray_up["head_start_ray_commands"], ray_up["worker_start_ray_commands"]):
        assert [each for each in commands if " start " in each and "RAY_AUTH_MODE=token" in each]


def test_options_of_ray_start_exist(ray_up: dict[str, Any], infra: Path) -> None:
    commands = [*ray_up["head_start_ray_commands"], *ray_up["worker_start_ray_commands"]]
    for command in commands:
        words = [word for word in shlex.split(command) if not word.startswith("RAY_AUTH_MODE=")]
        assert words[0] == "ray"
        assert options(words) <= known(ray_cli, words[1])
    for name, value in ray_start_params(build(infra / "kubernetes" / "base")):
        assert f"--{name}" in known(ray_cli, "start")
        assert isinstance(value, str), f"{name}: the operator wants a string"


def test_options_of_mlflow_server_exist(compose: dict[str, Any], infra: Path) -> None:
    commands = [compose["services"]["mlflow"]["command"]]
    for container in containers(build(infra / "kubernetes" / "base")):
        if container.get("command", [""])[0] == "mlflow":
            commands.append(container["command"])
    assert len(commands) == 2
    for command in commands:
        assert command[:2] == ["mlflow", "server"]
        assert options(command) <= known(mlflow_cli, "server")


def compose_errors(content: dict[str, Any], folder: Path) -> str:
    """What the schema of compose files finds wrong."""
    file = folder / "compose.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    result = subprocess.run(
        [CHECK, "--builtin-schema", "vendor.compose-spec", file], capture_output=True, text=True
    )
    return result.stdout if result.returncode else ""


def options(words: list[str]) -> set[str]:
    """The option names on a command line."""
    return {word.split("=")[0] for word in words if word.startswith("--")}


def known(group: click.Group, name: str) -> set[str]:
    """The option names a command takes."""
    return {option for parameter in group.commands[name].params for option in parameter.opts}


def ray_start_params(node: Any) -> Iterator[tuple[str, Any]]:
    """What the operator passes on to `ray start`, wherever in a tree."""
    if isinstance(node, list):
        for each in node:
            yield from ray_start_params(each)
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from value.items() if key == "rayStartParams" else ray_start_params(value)
