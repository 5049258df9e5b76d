"""Workflows and issue forms against GitHub's schemas; workflows run what a developer runs."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CHECK = Path(sys.executable).with_name("check-jsonschema")
WORKFLOWS = ("lint", "release", "test")


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflow_is_valid(root: Path, name: str) -> None:
    assert errors("vendor.github-workflows", workflow(root, name)) == ""


def test_wrong_key_is_found(root: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(workflow(root, "test").read_text(encoding="utf-8"))
    content["jobs"]["test"]["timeout"] = 60
    broken = tmp_path / "test.yml"
    # YAML 1.1 reads the key `on` as true.
    broken.write_text(yaml.safe_dump(content).replace("true:", "on:", 1), encoding="utf-8")
    assert "timeout" in errors("vendor.github-workflows", broken)


def test_issue_form_is_valid(root: Path) -> None:
    form = root / ".github" / "ISSUE_TEMPLATE" / "bug.yml"
    assert errors("vendor.github-issue-forms", form) == ""


@pytest.mark.parametrize("name", WORKFLOWS)
def test_steps_use_the_makefile(root: Path, name: str) -> None:
    """Each job makes the environment the way CONTRIBUTING says, so the two cannot drift apart."""
    content = yaml.safe_load(workflow(root, name).read_text(encoding="utf-8"))
    for job in content["jobs"].values():
        steps = [step["run"] for step in job["steps"] if "run" in step]
        assert not any("pip install" in step for step in steps)


def workflow(root: Path, name: str) -> Path:
    """The file of a workflow."""
    return root / ".github" / "workflows" / f"{name}.yml"


def errors(schema: str, file: Path) -> str:
    """What the schema finds wrong."""
    result = subprocess.run(
        [CHECK, "--builtin-schema", schema, file], capture_output=True, text=True
    )
    return result.stdout if result.returncode else ""
