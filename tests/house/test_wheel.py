"""The built wheel holds the packages pyproject.toml lists, all of them and nothing else."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

BESIDE = ("pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel_names(
    root: Path,
    tracked: list[Path],
    setuptools_table: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> set[str]:
    """Names in a wheel built from the files under version control, without network."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    folders = tuple(root / folder for folder in setuptools_table["package-dir"].values())
    for file in tracked:
        if file.is_relative_to(root) and (
            file.name in BESIDE and file.parent == root or any(map(file.is_relative_to, folders))
        ):
            copy = source / file.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    build = "from setuptools import build_meta; import sys; build_meta.build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", build, str(out)], cwd=source, check=True, capture_output=True
    )
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_packages_are_those_listed(
    wheel_names: set[str], setuptools_table: dict[str, Any]
) -> None:
    held = {
        str(PurePosixPath(name).parent).replace("/", ".")
        for name in wheel_names
        if name.endswith("/__init__.py")
    }
    assert held == set(setuptools_table["packages"])


def test_every_module_and_preset_is_in(
    wheel_names: set[str], root: Path, tracked: list[Path], setuptools_table: dict[str, Any]
) -> None:
    """A module or a data file that is tracked in a room and left out of the wheel is a bug."""
    expected: set[str] = set()
    for package, folder in setuptools_table["package-dir"].items():
        place = PurePosixPath(package.replace(".", "/"))
        for file in tracked:
            if file.is_relative_to(root / folder) and file.suffix in {".py", ".yaml", ".jsonl"}:
                expected.add(str(place / file.relative_to(root / folder).as_posix()))
    assert expected - wheel_names == set()


def test_nothing_else_is_in(wheel_names: set[str]) -> None:
    tops = {name.split("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"raylora"}
