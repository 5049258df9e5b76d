"""What the guards look at: the repository, its table of packages, its tracked files."""

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def setuptools_table(root: Path) -> dict[str, Any]:
    """[tool.setuptools] of pyproject.toml."""
    with (root / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["tool"]["setuptools"]


@pytest.fixture(scope="session")
def tracked(root: Path) -> list[Path]:
    """Every file under version control that is there."""
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True, text=True
    ).stdout
    files = [root / name for name in listing.split("\0") if name]
    assert files
    return [file for file in files if file.is_file()]
