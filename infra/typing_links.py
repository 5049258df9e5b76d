"""Lay out `.typing/`: the import package as a tree of links, and a pyright project over it.

The rooms live at the top of the repository and setuptools maps them into one package. Type
checkers and import-linter only follow real folders, so they read this git-ignored tree, made from
the package-dir table in pyproject.toml. Pyright runs inside it (`pyright -p .typing`): run over
the folders themselves it would know each class twice, as jobs/x.py and as raylora/jobs/x.py, and
refuse to pass one for the other. `make types` and `make imports` bring the tree up to date.

    python infra/typing_links.py
"""

import json
import os
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / ".typing"
PACKAGE = "raylora"


def main() -> None:
    """Make the tree what pyproject.toml says, touching only what differs."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        tool = tomllib.load(file)["tool"]
    folders: dict[str, str] = tool["setuptools"]["package-dir"]
    beside = [path for path in tool["pyright"]["include"] if not _holds_package(path, folders)]
    lay(links(folders), TREE / PACKAGE)
    lay({path: ROOT / path for path in beside}, TREE)
    config = pyright_project(tool["pyright"], sorted(links(folders)), beside)
    (TREE / "pyrightconfig.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def links(folders: dict[str, str]) -> dict[str, Path]:
    """Name under `.typing/raylora` and where it points.

    The package's own entries are linked one by one, since the rooms beside them lie elsewhere.
    """
    own = {entry.name: entry for entry in (ROOT / folders[PACKAGE]).iterdir()}
    own.pop("__pycache__", None)
    rooms = {
        name.removeprefix(f"{PACKAGE}."): ROOT / folder
        for name, folder in folders.items()
        if name != PACKAGE
    }
    return own | rooms


def pyright_project(
    settings: dict[str, Any], inside: list[str], beside: list[str]
) -> dict[str, Any]:
    """The settings of [tool.pyright], seen from the tree.

    Each link is named: pyright does not follow one that it meets on its way.
    """
    venv = {"venvPath": os.path.relpath(ROOT / settings["venvPath"], TREE)}
    include = [f"{PACKAGE}/{name}" for name in inside] + beside
    return settings | venv | {"include": include, "extraPaths": ["."]}


def lay(wanted: dict[str, Path], place: Path) -> None:
    """Make `place` hold exactly these links, beside whatever real files it has."""
    place.mkdir(parents=True, exist_ok=True)
    for entry in place.iterdir():
        if entry.is_symlink() and entry.name not in wanted:
            entry.unlink()
    for name, target in wanted.items():
        link, to = place / name, os.path.relpath(target, place)
        if not link.is_symlink() or os.readlink(link) != to:
            link.unlink(missing_ok=True)
            link.symlink_to(to)


def _holds_package(path: str, folders: dict[str, str]) -> bool:
    return any(folder == path or folder.startswith(f"{path}/") for folder in folders.values())


if __name__ == "__main__":
    main()
