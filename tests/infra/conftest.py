"""Where the manifests lie and the schemas they are held against."""

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

ROOT = Path(__file__).resolve().parents[2]
KUBERAY = "kuberay-1.7.0"
KINDS = ("RayCluster", "RayJob", "RayService")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def infra(root: Path) -> Path:
    """The room under test."""
    return root / "infra"


@pytest.fixture(scope="session")
def kuberay_schemas(root: Path) -> dict[str, Any]:
    """KubeRay's schemas by kind. They lie beside the project and are not part of it."""
    folder = Path(os.environ.get("RAYLORA_SCHEMAS", root.parent / "shared" / "schemas")) / KUBERAY
    if not folder.is_dir():
        pytest.skip(f"KubeRay's schemas are not at {folder}; set RAYLORA_SCHEMAS to their folder")
    schemas = {
        kind: json.loads((folder / f"{kind.lower()}.json").read_text(encoding="utf-8"))
        for kind in KINDS
    }
    for schema in schemas.values():
        Draft7Validator.check_schema(schema)
    return schemas


@pytest.fixture(scope="session")
def setup_folders(root: Path) -> list[str]:
    """The folders that make up the package."""
    with (root / "pyproject.toml").open("rb") as file:
        return list(tomllib.load(file)["tool"]["setuptools"]["package-dir"].values())
