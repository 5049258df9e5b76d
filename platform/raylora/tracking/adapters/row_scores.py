"""Scores of single held-out rows, kept with a run so that two versions can be compared by row."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

FILE = "evaluation/row_scores.json"
"""Among the artifacts of a run."""

RowScores: TypeAlias = Mapping[str, Mapping[str, float]]
"""By row and by metric, named as the run names its metrics."""


def row_key(prompt: object, reference: str) -> str:
    """What a row asks and expects, whichever file and line it stands in."""
    said = json.dumps([prompt, reference], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def collect(rows: Iterable[tuple[str, Mapping[str, float]]]) -> RowScores:
    """Scores by key; a row that comes again gets a number behind its key."""
    seen: Counter[str] = Counter()
    found: dict[str, Mapping[str, float]] = {}
    for key, scores in rows:
        seen[key] += 1
        found[key if seen[key] == 1 else f"{key}-{seen[key]}"] = scores
    return found


def write(path: Path, scores: RowScores) -> None:
    """Write them for `parse`."""
    path.write_text(json.dumps({"rows": scores}) + "\n", encoding="utf-8")


def parse(text: str) -> RowScores:
    """What `write` wrote."""
    return json.loads(text)["rows"]


def differences(candidate: RowScores, incumbent: RowScores, metric: str) -> Sequence[float]:
    """Candidate less incumbent, for each row of which both have the metric."""
    return [
        scores[metric] - incumbent[key][metric]
        for key, scores in candidate.items()
        if metric in scores and metric in incumbent.get(key, {})
    ]


def metrics_of(scores: RowScores) -> set[str]:
    """Names of the metrics that some row has."""
    return {metric for row in scores.values() for metric in row}
