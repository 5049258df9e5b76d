"""Everything that an evaluation has found, as it is stored and shown."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from raylora.config.evaluate_spec import EvaluateSpec
from raylora.jobs.evaluate.asked_rows import AskedRows
from raylora.jobs.evaluate.comparison import Comparison, Pair, compare, pairs_of, regressed
from raylora.jobs.evaluate.row_result import RowResult
from raylora.jobs.evaluate.scores import Score, Unasked, scores_of, unasked_of
from raylora.jobs.evaluate.subject import Subject


@dataclass(frozen=True)
class DatasetFacts:
    """What was asked of one data set."""

    name: str
    source: str
    digest: str
    rows: int
    asked: int
    general: bool


@dataclass(frozen=True)
class Report:
    """One evaluation."""

    run_id: str
    name: str
    model: str
    subjects: list[Subject]
    datasets: list[DatasetFacts]
    scores: list[Score]
    comparisons: list[Comparison]
    unasked: list[Unasked]
    worse: dict[Comparison, list[Pair]]
    """Rows of a comparison that got worse, the worst first."""
    written: datetime

    def as_json(self) -> dict[str, Any]:
        """What evaluation.json holds; rows by their place, for their text is in the Parquet."""
        return {
            "run_id": self.run_id,
            "name": self.name,
            "model": self.model,
            "written": self.written.isoformat(timespec="seconds"),
            "subjects": [
                {
                    "label": subject.label,
                    "asked_as": subject.asked_as,
                    "run_id": subject.run_id,
                    "digest": subject.digest,
                }
                for subject in self.subjects
            ],
            "datasets": [asdict(facts) for facts in self.datasets],
            "scores": [asdict(score) for score in self.scores],
            "comparisons": [
                {
                    **asdict(comparison),
                    "forgetting": comparison.forgetting,
                    "worse_rows": [
                        {"file": pair.subject.file, "line": pair.subject.line, "gain": pair.gain}
                        for pair in self.worse[comparison]
                    ],
                }
                for comparison in self.comparisons
            ],
            "unasked": [asdict(row) for row in self.unasked],
        }


def report(
    spec: EvaluateSpec,
    run_id: str,
    subjects: Sequence[Subject],
    datasets: Sequence[AskedRows],
    results: Mapping[str, Sequence[RowResult]],
) -> Report:
    """Put results, by data set, into figures."""
    scores: list[Score] = []
    comparisons: list[Comparison] = []
    unasked: list[Unasked] = []
    facts: list[DatasetFacts] = []
    worse: dict[Comparison, list[Pair]] = {}
    for asked, rows in zip(spec.datasets, datasets, strict=True):
        found, metrics = results[asked.label], spec.metrics_of(asked)
        scores += scores_of(found, metrics)
        missed = unasked_of(found)
        unasked += missed
        facts.append(
            DatasetFacts(
                asked.label,
                rows.source,
                rows.digest,
                len(rows.rows),
                len(rows.rows) - len(missed),
                asked.general,
            )
        )
        for comparison in compare(found, asked, metrics):
            comparisons.append(comparison)
            pairs = pairs_of(found, comparison.subject, comparison.against, comparison.metric)
            worse[comparison] = regressed(pairs)
    return Report(
        run_id=run_id,
        name=spec.name,
        model=spec.model.name,
        subjects=list(subjects),
        datasets=facts,
        scores=scores,
        comparisons=comparisons,
        unasked=unasked,
        worse=worse,
        written=datetime.now(UTC),
    )
