"""The page of an evaluation: figures, rows that got worse, and nothing that is fetched."""

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from raylora.config.evaluate_spec import EvaluateSpec
from raylora.jobs.data.records import BadLine, Fault, Place
from raylora.jobs.evaluate.asked_rows import AskedRows
from raylora.jobs.evaluate.evaluation_report import Report, report
from raylora.jobs.evaluate.page import page
from raylora.jobs.evaluate.row_result import RowResult
from raylora.jobs.evaluate.subject import THE_BASE, Subject

ROWS = 12


class Cells(HTMLParser):
    """Cells of each table by its id, and what the page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[str]] = {}
        self.loaded: list[str] = []
        self._table = ""
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "table":
            self._table = given["id"] or ""
            self.tables[self._table] = []
        self._inside = tag == "td"
        if self._inside:
            self.tables[self._table].append("")
        if tag == "link" or (tag in ("script", "img") and "src" in given):
            self.loaded.append(tag)

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.tables[self._table][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "td"


def result(subject: str, line: int, right: bool) -> RowResult:
    return RowResult(
        *("general", "/data/g.jsonl", line, subject),
        prompt=[{"role": "user", "content": f"<b>ask</b> {line}"}],
        reference="yes",
        choice="yes" if right else "no</script>",
        reference_tokens=3,
        scores={"choice_accuracy": float(right), "loss": 1.0 if right else 2.0},
    )


@pytest.fixture(scope="module")
def found() -> Report:
    """An adapter that has forgotten, beside one row that was not asked."""
    spec = EvaluateSpec.model_validate(
        {
            "subjects": ["base", "a@champion"],
            "datasets": [
                {
                    "source": "general.jsonl",
                    "metrics": ["choice_accuracy", "perplexity", "mine:none"],
                    "options": ["yes", "no"],
                    "general": True,
                }
            ],
        }
    )
    rows = [result("base", line, True) for line in range(1, ROWS + 1)]
    rows += [result("a@1", line, line < 4) for line in range(1, ROWS + 1)]
    rows += [
        RowResult("general", "/data/g.jsonl", 99, name, unasked="it is too long")
        for name in ("base", "a@1")
    ]
    fault = Fault(Place("/data/g.jsonl", 99), BadLine("it is too long", "mend it"))
    asked = AskedRows("general", "general.jsonl", (fault,) * (ROWS + 1), "digest")
    subjects = [THE_BASE, Subject("a@1", "a@champion")]
    return report(spec, "RUN", subjects, [asked], {"general": rows})


@pytest.fixture(scope="module")
def told(found: Report) -> dict[str, Any]:
    return json.loads(json.dumps(found.as_json()))


@pytest.fixture(scope="module")
def text(found: Report) -> str:
    return page(found)


def test_the_json_tells_every_figure(told: dict[str, Any]) -> None:
    scores = {(s["subject"], s["metric"]): s for s in told["scores"]}
    assert scores["a@1", "choice_accuracy"]["mean"] == 0.25
    assert scores["base", "perplexity"]["mean"] == pytest.approx(2.71828, abs=1e-4)
    assert scores["base", "mine:none"]["mean"] is None
    compared = {c["metric"]: c for c in told["comparisons"]}
    assert set(compared) == {"choice_accuracy", "loss"}
    assert compared["choice_accuracy"]["forgetting"] is True
    assert compared["choice_accuracy"]["regressions"] == 9
    assert [row["line"] for row in compared["loss"]["worse_rows"]] == list(range(4, ROWS + 1))
    assert told["datasets"][0]["asked"] == ROWS
    assert told["unasked"][0]["reason"] == "it is too long"
    assert told["subjects"][1] == {
        "label": "a@1",
        "asked_as": "a@champion",
        "run_id": None,
        "digest": None,
    }


def test_the_page_shows_them_and_fetches_nothing(text: str) -> None:
    cells = Cells(text)
    assert cells.loaded == []
    assert "default-src 'none'" in text
    assert "missing" in cells.tables["scores"]
    assert cells.tables["unasked"] == ["general", "/data/g.jsonl:99", "it is too long"]
    worse = cells.tables["worse-0"]
    assert worse[:6] == ["g.jsonl:4", "<b>ask</b> 4", "yes", "no</script>", "yes", "1"]
    assert "has forgotten on general, choice_accuracy -0.75" in text


def test_the_plots_are_in_it(text: str) -> None:
    (data,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', text)
    figures = json.loads(data.replace("<\\/", "</"))
    assert {"differences"} < set(figures)
    places = re.findall(r'data-figure="([^"]+)"', text)
    assert list(figures) == places
