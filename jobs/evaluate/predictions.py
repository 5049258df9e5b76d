"""Results of rows as a Parquet file: one row a subject and a row of the data."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from raylora.jobs.evaluate.row_result import RowResult

SCORE = "score."
"""Before the name of a metric in the name of its column."""

_COLUMNS = (
    ("dataset", pa.string()),
    ("file", pa.string()),
    ("line", pa.int64()),
    ("subject", pa.string()),
    ("prompt", pa.string()),  # messages as JSON
    ("reference", pa.string()),
    ("answer", pa.string()),
    ("finish_reason", pa.string()),
    ("tokens", pa.int64()),
    ("choice", pa.string()),
    ("reference_tokens", pa.int64()),
    ("unasked", pa.string()),  # why; empty where the row was asked
)


def write(path: Path, results: Sequence[RowResult]) -> None:
    """Write results; a metric that a row has no value of is null."""
    metrics = list(dict.fromkeys(name for result in results for name in result.scores))
    fields = [*_COLUMNS, *((SCORE + name, pa.float64()) for name in metrics)]
    schema = pa.schema([pa.field(name, kind) for name, kind in fields])
    table = pa.Table.from_pylist([_record(result) for result in results], schema=schema)
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, compression="zstd")


def read(path: Path) -> Iterator[RowResult]:
    """Yield what `write` wrote."""
    for record in parquet.read_table(path).to_pylist():
        scores = {
            name.removeprefix(SCORE): value
            for name, value in record.items()
            if name.startswith(SCORE)
        }
        fields: dict[str, Any] = {name: record[name] for name, _ in _COLUMNS}
        prompt = json.loads(fields.pop("prompt"))
        yield RowResult(**fields, prompt=prompt, scores={} if fields["unasked"] else scores)


def _record(result: RowResult) -> dict[str, Any]:
    fields: dict[str, Any] = {name: getattr(result, name) for name, _ in _COLUMNS}
    prompt = json.dumps(result.prompt, ensure_ascii=False)
    return {**fields, "prompt": prompt, **{SCORE + k: v for k, v in result.scores.items()}}
