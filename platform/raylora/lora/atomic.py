"""Directories that are either complete or absent, and a lock between processes."""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def directory(final: Path) -> Iterator[Path]:
    """Yield an empty directory beside `final`; on a clean exit it becomes `final` in one rename.

    On an exception nothing is left behind. Raises FileExistsError where `final` exists.
    """
    staged = stage(final)
    try:
        yield staged
        publish(staged, final)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def stage(final: Path) -> Path:
    """Make an empty directory on the file system of `final`, hidden from readers by its name."""
    final.parent.mkdir(parents=True, exist_ok=True)
    staged = final.parent / f".{final.name}.{secrets.token_hex(4)}.partial"
    staged.mkdir()
    return staged


def publish(staged: Path, final: Path) -> None:
    """Flush every file of `staged` to disk, then rename it to `final`.

    After a crash at any moment `final` is complete or absent. Raises FileExistsError where `final`
    is a directory with files in it: a published directory is never changed.
    """
    for folder, _, names in os.walk(staged):
        for name in names:
            _fsync(Path(folder) / name)
        _fsync(Path(folder))
    try:
        staged.rename(final)
    except OSError as error:
        if final.exists():
            raise FileExistsError(f"{final} exists already") from error
        raise
    _fsync(final.parent)


def remove_partial(final: Path) -> None:
    """Delete what crashed writers of `final` left. Only for the holder of its lock."""
    for leftover in final.parent.glob(f".{final.name}.*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step, flushed to disk."""
    staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    staged.write_text(text, encoding="utf-8")
    _fsync(staged)
    staged.replace(path)
    _fsync(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` against other processes of this machine.

    The kernel frees it when the holder dies, so there are no stale locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
