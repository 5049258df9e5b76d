"""The rooms: what pyproject.toml lists is what the folders hold."""

from pathlib import Path
from typing import Any


def test_platform_is_no_package(root: Path) -> None:
    """It would shadow Python's own `platform` wherever the root is on the import path."""
    assert not (root / "platform" / "__init__.py").exists()
    assert not (root / "__init__.py").exists()


def test_listed_packages_are_the_folders(root: Path, setuptools_table: dict[str, Any]) -> None:
    found = {
        package
        for top, folder in setuptools_table["package-dir"].items()
        for package in packages_in(root / folder, top)
    }
    assert found == set(setuptools_table["packages"])


def test_sub_rooms_are_one_level_deep(setuptools_table: dict[str, Any]) -> None:
    deep = [name for name in setuptools_table["packages"] if name.count(".") > 2]
    assert not deep


def test_each_room_says_what_it_is(root: Path, setuptools_table: dict[str, Any]) -> None:
    rooms = [root / folder for folder in setuptools_table["package-dir"].values()]
    rooms += [path for path in (root / "platform" / "raylora").iterdir() if is_package(path)]
    rooms += [root / "tests", root / "infra"]
    rooms.remove(root / "platform" / "raylora")
    assert [room for room in rooms if not (room / "README.md").is_file()] == []


def packages_in(folder: Path, name: str) -> list[str]:
    """The package and its sub-packages, down to any depth."""
    subs = [path for path in sorted(folder.iterdir()) if is_package(path)]
    return [name] + [found for sub in subs for found in packages_in(sub, f"{name}.{sub.name}")]


def is_package(path: Path) -> bool:
    """A folder that holds modules, whether or not it has an __init__.py."""
    return path.is_dir() and path.name != "__pycache__" and any(path.glob("*.py"))
