"""Tokenised data kept on disk, by all that decides what it is.

The key is a hash of the content of the source, the chat template, the tokenizer, the settings that
matter and the version of this code. A store is complete or absent, several processes that want the
same one build it once, and one that is damaged is built again.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Protocol

from raylora.config.data_spec import DataSpec, SourceSpec
from raylora.config.places import cache
from raylora.jobs.data.encode import EncodedRow, Encoder
from raylora.jobs.data.faults import Faults
from raylora.jobs.data.partition import held_out_rows, training_rows
from raylora.jobs.data.records import Fault
from raylora.jobs.data.report import Counter, DataReport
from raylora.jobs.data.rows import PlacedRow
from raylora.jobs.data.sources import fingerprint
from raylora.jobs.data.token_store import StoredExamples, StoreWriter, open_store
from raylora.lora import atomic

CODE_VERSION: Final = 1
"""Raised when the same input would be encoded otherwise than before."""

DECISIVE: Final = (
    "prompt_template",
    "completion_template",
    "system_prompt",
    "supervise",
    "max_length",
    "truncation",
    "bad_rows",
    "validation_ratio",
)
"""Keys of data that decide what becomes of a row."""


class Part(StrEnum):
    """What the rows of a source are for."""

    TRAIN = "train"
    HELD_OUT = "held_out"


class Tokenised(Protocol):
    """Encodes the rows of a part of a source, in their order."""

    def __call__(
        self, source: SourceSpec, data: DataSpec, tokenizer: Any, base_dir: Path, part: Part
    ) -> Iterable[EncodedRow | Fault]: ...


def encode_here(
    source: SourceSpec, data: DataSpec, tokenizer: Any, base_dir: Path, part: Part
) -> Iterable[EncodedRow | Fault]:
    """Read and encode in this process."""
    return Encoder(tokenizer, data).encode(rows_of(source, data, base_dir, part))


def rows_of(
    source: SourceSpec, data: DataSpec, base_dir: Path, part: Part
) -> Iterator[PlacedRow | Fault]:
    """Yield the rows of one part of a source."""
    if part is Part.TRAIN:
        return training_rows(source, data, base_dir)
    return held_out_rows(source, data, base_dir)


def cached(
    source: SourceSpec,
    data: DataSpec,
    tokenizer: Any,
    base_dir: Path,
    part: Part,
    encode: Tokenised = encode_here,
) -> tuple[StoredExamples, DataReport]:
    """The examples of a part of a source, which may be none, and what became of its rows.

    The tokenizer has the chat template that is to be used. Raises InvalidData, and then keeps
    nothing.
    """
    key = _key(source, data, tokenizer, base_dir, part)
    final = cache() / FOLDER / key
    with atomic.locked(cache() / "locks" / f"{FOLDER}-{key}"):
        store = _opened(final)
        if store is None:
            shutil.rmtree(final, ignore_errors=True)
            atomic.remove_partial(final)
            with atomic.directory(final) as staged:
                _write(staged, encode(source, data, tokenizer, base_dir, part), data)
            store = open_store(final)
    return store, DataReport.of(store.notes)


def settings(data: DataSpec, tokenizer: Any) -> dict[str, Any]:
    """All but the rows that decides what their tokens are."""
    return {
        "code": CODE_VERSION,
        "transformers": version("transformers"),
        "data": data.model_dump(mode="json", include=set(DECISIVE)),
        "chat_template": tokenizer.chat_template,
        "tokenizer": tokenizer.backend_tokenizer.to_str(),
        "special_tokens": str(tokenizer.special_tokens_map),
    }


FOLDER: Final = "data"
"""In the cache folder."""


def _opened(directory: Path) -> StoredExamples | None:
    """None where it is absent or damaged."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return open_store(directory)
    return None


def _write(directory: Path, encoded: Iterable[EncodedRow | Fault], data: DataSpec) -> None:
    faults = Faults(data.bad_rows)
    counter = Counter(faults)
    with StoreWriter(directory) as writer:
        for row in encoded:
            if isinstance(row, Fault):
                faults.add(row)
                continue
            counter.add(row)
            for example in row.examples:
                writer.add(example)
        faults.settle()
        writer.finish(counter.report().as_dict())


def _key(source: SourceSpec, data: DataSpec, tokenizer: Any, base_dir: Path, part: Part) -> str:
    decisive = {
        "content": fingerprint(source, base_dir),
        "part": part,
        "source": source.model_dump(mode="json", include={"shape", "columns"}),
        **settings(data, tokenizer),
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:32]
