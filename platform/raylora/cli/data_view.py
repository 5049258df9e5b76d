"""What `raylora data check` found, as tables, histograms and rows with their mask in colour."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from rich.console import Group, RenderableType
from rich.text import Text

from raylora.cli.output import make_table
from raylora.config.data_spec import DataSpec, Truncation

Report: TypeAlias = Mapping[str, Any]

BAR: Final = 40
"""Characters of the longest bar."""
MAX_SPAN: Final = 600
"""Characters shown of neighbouring tokens; beyond, their middle is left out."""

LEARNT: Final = ("black on green", "black on bright_green")
GIVEN: Final = ("dim", "")
"""Styles of tokens in turn, so that their borders are seen."""

TRUNCATES: Final = {
    Truncation.ERROR: "training stops",
    Truncation.DROP: "left out",
    Truncation.LEFT: "cut at the beginning",
    Truncation.RIGHT: "cut at the end",
    Truncation.SPLIT: "split",
}


def tables(report: Report, data: DataSpec) -> RenderableType:
    """Everything, from sources as a whole down to single tokens."""
    return Group(*(piece for part in _parts(report, data) for piece in (part, "")))


def _parts(report: Report, data: DataSpec) -> Iterator[RenderableType]:
    for source in report["sources"]:
        yield make_table((source["part"], source["source"]), _source(source))
        yield from _examples(source)
    for leak in report["leakage"]:
        title = ("held-out rows that training has", f"{leak['heldout']} in {leak['train']}")
        yield make_table(title, _leakage(leak))
        yield from _leaked(leak)
    for tokens in report["tokens"]:
        yield make_table((f"tokens of {tokens['part']}", tokens["source"]), _tokens(tokens, data))
        yield _histogram(tokens["histogram"], data.max_length)
        yield from _worst(tokens)
        for row in tokens["preview"]:
            yield Text(_place(row["place"]), style="bold")
            yield make_table(("", "tokens", "text"), map(_span, row["spans"]))
    if problems := report["problems"]:
        yield make_table(("training would stop at", "", "instead"), map(_problem, problems))


def _source(source: Report) -> Iterator[tuple[str, object]]:
    rows, equal, near = source["rows"], source["duplicates"], source["near_duplicates"]
    speed = f"{source['seconds']:.1f} s, {source['megabytes_per_second']:,.0f} MB/s"
    yield "files", f"{source['files']}, {source['bytes'] / 1e6:,.1f} MB, read in {speed}"
    yield "rows", f"{rows:,} of shape {source['shape']}"
    yield "columns", ", ".join(_column(column, rows) for column in source["columns"])
    yield "cannot be used", _share(source["bad_rows"], rows)
    estimated = "" if equal["looked_at"] == 1 else ", an estimate"
    yield "equal an earlier row", _share(equal["rows"], rows) + estimated
    yield "nearly equal one", f"{_share(near['rows'], near['of_rows'])} of {_looked_at(near)}"


def _examples(source: Report) -> Iterator[RenderableType]:
    if source["bad"]:
        yield make_table(("cannot be used", "", "instead"), map(_problem, source["bad"]))
    if groups := source["duplicates"]["groups"]:
        equal = ((g["rows"], ", ".join(map(_place, g["places"]))) for g in groups)
        yield make_table(("equal rows", "at"), equal)
    if pairs := source["near_duplicates"]["pairs"]:
        yield make_table(("similarity", "row", "like"), map(_pair, pairs))


def _leakage(leak: Report) -> Iterator[tuple[str, object]]:
    near = leak["near"]
    yield "the whole row", _share(leak["rows"]["rows"], leak["heldout_rows"])
    yield "the prompt", _share(leak["prompts"]["rows"], leak["heldout_rows"])
    yield "nearly", f"{_share(near['rows'], near['of_rows'])} of {_looked_at(near)}"


def _leaked(leak: Report) -> Iterator[RenderableType]:
    alike: list[tuple[object, ...]] = [
        (what, _place(pair["heldout"]), _place(pair["train"]))
        for what, found in (("the whole row", leak["rows"]), ("the prompt", leak["prompts"]))
        for pair in found["examples"]
    ]
    alike += map(_pair, leak["near"]["pairs"])
    if alike:
        yield make_table(("alike", "held out", "trained on"), alike)


def _tokens(tokens: Report, data: DataSpec) -> Iterator[tuple[str, object]]:
    rows, lengths = tokens["rows"], tokens["percentiles"]
    yield "rows", _looked_at({**tokens, "of_rows": rows})
    yield "tokens", f"{tokens['tokens']:,}"
    yield "learnt", _share(tokens["supervised"], tokens["tokens"])
    yield "of a row", ", ".join(f"{share} % up to {most:,}" for share, most in lengths.items())
    beyond = f"{_share(tokens['too_long'], rows)}: {TRUNCATES[data.truncation]}"
    yield f"more than {data.max_length:,}", beyond
    yield "nothing left to learn", _share(tokens["unsupervised"], rows)
    yield "not for this model", _share(tokens["unusable"], rows)


def _histogram(buckets: Sequence[Report], limit: int) -> RenderableType:
    most = max((bucket["rows"] for bucket in buckets), default=1)
    bars = (
        (
            f"{bucket['first']:,} to {bucket['last']:,}",
            bucket["rows"],
            Text("#" * -(-BAR * bucket["rows"] // most), _bar_style(bucket, limit)),
        )
        for bucket in buckets
    )
    return make_table(("tokens", "rows", ""), bars)


def _bar_style(bucket: Report, limit: int) -> str:
    return "red" if bucket["first"] > limit else "cyan"


def _worst(tokens: Report) -> Iterator[RenderableType]:
    for title, rows in (
        ("longest rows", tokens["longest"]),
        ("least to learn", tokens["least_supervised"]),
    ):
        found = ((_place(row["place"]), row["tokens"], row["supervised"]) for row in rows)
        yield make_table((title, "tokens", "learnt"), found)


def _span(span: Report) -> tuple[object, ...]:
    styles = LEARNT if span["learnt"] else GIVEN
    return "learnt" if span["learnt"] else "", span["count"], _painted(span["tokens"], styles)


def _painted(tokens: Sequence[str], styles: Sequence[str]) -> Text:
    if sum(map(len, tokens)) > MAX_SPAN:
        beginning = _first(tokens, MAX_SPAN // 2)
        end = _first(tokens[::-1], MAX_SPAN // 2)[::-1]
        return _painted(beginning, styles).append(" ... ").append(_painted(end, styles))
    painted = Text()
    for index, token in enumerate(tokens):
        painted.append(token, styles[index % len(styles)])
    return painted


def _first(tokens: Sequence[str], characters: int) -> list[str]:
    taken: list[str] = []
    for token in tokens:
        characters -= len(token)
        if characters < 0:
            break
        taken.append(token)
    return taken


def _problem(problem: Report) -> tuple[str, ...]:
    return _place(problem), problem["message"], problem["hint"]


def _pair(pair: Report) -> tuple[object, ...]:
    return f"{pair['similarity']:.2f}", _place(pair["row"]), _place(pair["other"])


def _column(column: Report, rows: int) -> str:
    missing = "" if column["rows"] == rows else f" (in {column['rows']:,})"
    return column["name"] + missing


def _looked_at(part: Report) -> str:
    """How many rows, and whether these are all."""
    rows = f"{part['of_rows']:,} rows"
    return f"all {rows}" if part["is_all"] else f"a sample of {rows}"


def _place(place: Report) -> str:
    """FILE:LINE, from the current folder on where it is below."""
    file, here = Path(place["file"]), Path.cwd()
    return f"{file.relative_to(here) if file.is_relative_to(here) else file}:{place['line']}"


def _share(rows: int, total: int) -> str:
    return f"{rows:,} ({rows / total:.1%})" if rows else "none"
