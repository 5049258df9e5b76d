"""What a spec names as data, to its files and their records.

A source is a path, a glob or a folder, relative to a folder of the caller's; an fsspec URL, which
may be a glob or a folder too; hub:ORG/NAME; or bundled:NAME/SPLIT, which ships with raylora.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from glob import escape, glob
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any, Final

from raylora.config.data_spec import BUNDLED, SourceSpec
from raylora.errors import InvalidData
from raylora.jobs.data import hub
from raylora.jobs.data.lines import REMOTE, suffix_of
from raylora.jobs.data.readers import READERS, read
from raylora.jobs.data.records import Found

FILE_SCHEME: Final = "file://"


def records(source: SourceSpec, base_dir: Path, *, streaming: bool = False) -> Iterator[Found]:
    """Yield the rows of a source as they are, file after file, in bounded memory.

    streaming: read the hub's as they come, without a copy on disk. Raises InvalidData for what
    cannot be found or read.
    """
    if source.source.startswith(hub.PREFIX):
        yield from hub.records(source, streaming=streaming)
        return
    for file in locate(source, base_dir):
        yield from read(file)


def locate(source: SourceSpec, base_dir: Path) -> tuple[str, ...]:
    """Paths and URLs of the files of a source that is not on the hub, sorted.

    Of a folder whose names tell splits apart (train-00000.parquet, test/rows.jsonl), those of
    source.split. Raises InvalidData where there are none.
    """
    name = source.source
    if name.startswith(BUNDLED):
        return (_bundled(name),)
    name = name.removeprefix(FILE_SCHEME)
    if REMOTE in name:
        return _remote(name, source.split)
    path = base_dir / Path(name).expanduser()
    if path.is_dir():
        found = [file for file in path.rglob("*") if file.is_file() and not _hidden(file, path)]
        return _of_folder([str(file) for file in found], str(path), source.split)
    if not path.exists() and _GLOB.search(name):
        pattern = Path(escape(str(base_dir))) / Path(name).expanduser()
        found = [Path(file) for file in glob(str(pattern), recursive=True)]
        return _some([str(file) for file in found if file.is_file()], str(path))
    return (str(path),)


def has_splits(source: SourceSpec, base_dir: Path) -> bool:
    """Whether source.split can choose among rows: on the hub and in folders."""
    name = source.source.removeprefix(FILE_SCHEME)
    if REMOTE in name:
        return suffix_of(name) not in READERS
    return name.startswith(hub.PREFIX) or (base_dir / Path(name).expanduser()).is_dir()


def fingerprint(source: SourceSpec, base_dir: Path) -> str:
    """sha256 of what the files hold; of remote ones, of what their store says identifies them."""
    if source.source.startswith(hub.PREFIX):
        return hub.fingerprint(source)
    digest = hashlib.sha256()
    for file in locate(source, base_dir):
        digest.update(_fingerprint(file) + suffix_of(file).encode())
    return digest.hexdigest()


def identity(source: SourceSpec, base_dir: Path) -> str:
    """What tells a source from others without reading it: names and sizes of its files."""
    if source.source.startswith(hub.PREFIX):
        return f"{source.source} {source.split}"
    files = [(file, _size(file)) for file in locate(source, base_dir)]
    return repr([(PurePosixPath(file).name, size) for file, size in files])


_GLOB: Final = re.compile(r"[*?\[]")

_SPLITS: Final = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "heldout"), "test"),
}
"""Words in the names of a folder's files that say which split they are of."""


def _bundled(name: str) -> str:
    folder = Path(str(files("raylora.jobs.data"))) / "bundled"
    known = {BUNDLED + "/".join(p.stem.rsplit("_", 1)): p for p in sorted(folder.glob("*.jsonl"))}
    if name not in known:
        raise InvalidData(
            "no such data set ships with raylora",
            file=name,
            hint="write one of: " + ", ".join(known),
        )
    return str(known[name])


def _remote(url: str, split: str) -> tuple[str, ...]:
    """One file, or those of a glob or a folder, at an fsspec URL."""
    try:
        system, path = _system(url)
        if _GLOB.search(path):
            return _some([system.unstrip_protocol(p) for p in system.glob(path)], url)
        if system.isdir(path):
            found = [system.unstrip_protocol(p) for p in system.find(path)]
            return _of_folder(found, system.unstrip_protocol(path), split)
    except (OSError, ImportError, ValueError) as error:  # no such scheme, no package for it
        raise InvalidData(
            f"cannot be read: {error}", file=url, hint="write a path, or a URL that fsspec reads"
        ) from error
    return (url,)


def _of_folder(found: Sequence[str], folder: str, split: str) -> tuple[str, ...]:
    data = _some([file for file in found if suffix_of(file) in READERS], folder)
    splits = {file: _split_of(file[len(folder) :]) for file in data}
    named = {one for one in splits.values() if one}
    wanted = _SPLITS.get(split, split)
    if not named and wanted == "train":
        return data
    if wanted not in named:
        raise InvalidData(
            f"no file of the split {split!r}; the names tell of: {', '.join(sorted(named))}"
            if named
            else f"no file of the split {split!r}: no name says which split it is of",
            file=folder,
            hint="name files by their split, such as train.jsonl and test.jsonl, or name the file",
        )
    return tuple(file for file in data if splits[file] == wanted)


def _split_of(name: str) -> str:
    """The first word of the path that names a split."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((_SPLITS[word] for word in words if word in _SPLITS), "")


def _some(found: Sequence[str], where: str) -> tuple[str, ...]:
    if not found:
        raise InvalidData(
            "cannot be read: there is no data file",
            file=where,
            hint=f"data files end with one of: {', '.join(READERS)}, compressed or not",
        )
    return tuple(sorted(found))


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)


def _size(file: str) -> int:
    if REMOTE in file:
        system, path = _system(file)
        return int(system.size(path) or 0)
    return Path(file).stat().st_size if Path(file).exists() else 0


def _system(url: str) -> tuple[Any, str]:
    import fsspec

    remote: Any = fsspec
    return remote.core.url_to_fs(url)


def _fingerprint(file: str) -> bytes:
    if REMOTE in file:
        system, path = _system(file)
        return str(system.ukey(path)).encode()
    try:
        with Path(file).open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError as error:
        raise InvalidData(
            f"cannot be read: {error.strerror}", file=file, hint="write the path of a data file"
        ) from error
