"""Folders that are shipped to a cluster, kept under RAYLORA_HOME by the hash of what is in them.

The same content is staged once, two commands may stage it at the same time, and what is there can
be submitted again later.
"""

import hashlib
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from raylora.config.places import home

ROOMS = ("configs", "jobs", "serve", "sweeps")
"""Subpackages that an editable install keeps outside the folder of `raylora` itself."""

Content = Mapping[str, Path | bytes]
"""Relative path in the folder -> the file to copy, or the bytes to write."""


def stage(kind: str, content: Content, *, keep: int) -> Path:
    """Return the folder RAYLORA_HOME/{kind}/{hash} with exactly this content.

    keep: how many folders of this kind stay; those not used for the longest time go.
    """
    root = home() / kind
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    final = root / _digest(content)
    if not final.is_dir():
        draft = root / f".{final.name}.{secrets.token_hex(4)}"
        _fill(draft, content)
        # Somebody else may have been faster with the same content: then theirs is as good.
        with suppress(OSError):
            draft.rename(final)
        shutil.rmtree(draft, ignore_errors=True)
    os.utime(final)
    _prune(root, keep)
    return final


def package_content() -> Content:
    """Return the files of the installed raylora package as one tree, `raylora/...`.

    Works from an editable install, where the rooms lie in different folders, and from a wheel.
    """
    content: dict[str, Path | bytes] = {}
    for name in ("raylora", *(f"raylora.{room}" for room in ROOMS)):
        spec = find_spec(name)
        folders = spec.submodule_search_locations if spec else None
        for folder in folders or ():
            content |= _files_below(Path(folder), name.replace(".", "/"))
    return content


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files_below(folder: Path, prefix: str) -> dict[str, Path]:
    return {
        f"{prefix}/{path.relative_to(folder).as_posix()}": path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def _digest(content: Content) -> str:
    whole = hashlib.sha256()
    for name in sorted(content):
        source = content[name]
        is_bytes = isinstance(source, bytes)
        part = hashlib.sha256(source).hexdigest() if is_bytes else sha256_of(source)
        whole.update(f"{name}\0{part}\n".encode())
    return whole.hexdigest()[:32]


def _fill(folder: Path, content: Content) -> None:
    for name, source in content.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, bytes):
            target.write_bytes(source)
        else:
            shutil.copyfile(source, target)


def _prune(root: Path, keep: int) -> None:
    folders = [path for path in root.iterdir() if not path.name.startswith(".")]
    with suppress(FileNotFoundError):
        folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for old in folders[keep:]:
        shutil.rmtree(old, ignore_errors=True)
