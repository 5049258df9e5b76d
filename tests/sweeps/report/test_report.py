"""The report of a stored sweep: its JSON, and the page as text."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.stored_sweep import BEST, ENDED_EARLY, FAILED, RATES, STEPS, SWEEP, loss_at, store_sweep

from raylora.config.compose import load_sweep
from raylora.config.sweep_spec import Mode
from raylora.errors import NotFound
from raylora.sweeps.report.make import findings, main, write_report
from raylora.tracking import sweep_tags as tags
from raylora.tracking.runs import open_run

TRIALS = [f"t{number:02}" for number in range(1, 9)]


class Page(HTMLParser):
    """The elements of a page: what it would load, the cells of its table, its figures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.rows: list[list[str]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.plots: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._inside = tag
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "script":
            self.scripts.append((given, ""))
        elif "data-figure" in given:
            self.plots.append(given["data-figure"] or "")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("td", "th"):
            self.rows[-1][-1] += data
        elif self._inside == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)

    @property
    def figures(self) -> dict[str, Any]:
        (data,) = [text for attributes, text in self.scripts if attributes.get("id") == "figures"]
        return json.loads(data)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> str:
    return store_sweep(tmp_path_factory.mktemp("sweep"), empty_store)


@pytest.fixture(scope="module")
def folder(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "report"
    write_report(uri, SWEEP, folder)
    return folder


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text("utf-8"))


def test_trials_are_ranked_with_the_best_and_how_to_train_it_again(told: dict[str, Any]) -> None:
    names = [trial["name"] for trial in told["trials"]]
    assert names == [BEST, "t07", "t06", "t05", "t04", "t02", ENDED_EARLY, FAILED]
    assert [trial["rank"] for trial in told["trials"]] == list(range(1, 9))
    assert told["best"]["name"] == BEST
    assert told["best"]["value"] == pytest.approx(loss_at(STEPS, 32, RATES[1]))
    assert told["best"]["submit"].startswith("raylora submit quickstart lora.r=32")
    assert told["trials"][-1]["value"] is None
    assert told["trials"][-1]["error"] == "the loss is NaN"


def test_the_rate_matters_and_the_rank_does_not(told: dict[str, Any]) -> None:
    assert told["axes"] == [["lora.r", "lora.lora_alpha"], ["training.learning_rate"]]
    assert told["compared"]["step"] == STEPS
    assert set(told["compared"]["values"]) == {*TRIALS} - {ENDED_EARLY, FAILED}
    shares = told["importance"]["shares"]
    assert shares["training.learning_rate"] > 0.75
    assert shares["lora.r, lora.lora_alpha"] < 0.25


def test_the_front_is_of_those_that_are_cheaper_or_better(told: dict[str, Any]) -> None:
    (size,) = [t for t in told["tradeoffs"] if t["cost"] == "adapter_bytes"]
    assert size["front"] == ["t05", "t06", "t07", BEST]
    assert size["points"]["t05"] == [4000, pytest.approx(loss_at(STEPS, 4, RATES[1]))]
    assert FAILED not in size["points"]
    (time,) = [t for t in told["tradeoffs"] if t["cost"] == "duration_s"]
    assert BEST in time["front"]


def test_the_page_fetches_nothing(page: Page, folder: Path) -> None:
    assert page.loaded == []
    text = (folder / "report.html").read_text("utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"@import|url\(", text[: text.index("<body>")])
    assert any("plotly.js v" in script for _, script in page.scripts)


def test_the_page_has_every_trial_and_its_figures(page: Page, told: dict[str, Any]) -> None:
    heading, *rows = page.rows
    assert heading[:5] == ["rank", "trial", "state", "steps", "loss"]
    shown = {row[1]: row for row in rows}
    assert set(shown) == set(TRIALS)
    for trial in told["trials"]:
        row = shown[trial["name"]]
        assert row[:4] == [str(trial["rank"]), trial["name"], trial["state"], str(trial["step"])]
        assert row[4] == ("" if trial["value"] is None else f"{trial['value']:.5g}")
        assert row[5] == str(trial["settings"]["lora.r"])


def test_the_plots_draw_what_the_json_says(page: Page, told: dict[str, Any]) -> None:
    figures = page.figures
    assert list(figures) == page.plots
    assert set(figures) == {
        *("curves", "importance", "plane", "parallel"),
        *("front-adapter_bytes", "front-duration_s"),
    }
    lines = {line["name"]: line for line in figures["curves"]["data"]}
    assert set(lines) == set(TRIALS)
    for name, line in lines.items():
        assert list(map(list, zip(line["x"], line["y"], strict=True))) == told["curves"][name]
    (bars,) = figures["importance"]["data"]
    assert bars["x"][:2] == list(told["importance"]["shares"].values())
    (plane,) = figures["plane"]["data"]
    assert (
        dict(zip(plane["text"], plane["marker"]["color"], strict=True))
        == (told["compared"]["values"])
    )
    assert set(plane["x"]) == set(RATES)
    front, beaten = figures["front-adapter_bytes"]["data"]
    (size,) = [t for t in told["tradeoffs"] if t["cost"] == "adapter_bytes"]
    assert front["text"] == size["front"]
    assert {*front["text"], *beaten["text"]} == set(size["points"])


def test_parallel_coordinates_have_an_axis_for_each_key_and_the_metric(page: Page) -> None:
    (lines,) = page.figures["parallel"]["data"]
    rank, rate, loss = lines["dimensions"]
    assert (rank["label"], rate["label"], loss["label"]) == (
        *("lora.r", "training.learning_rate"),
        "loss",
    )
    assert set(rank["values"]) == {4, 8, 16, 32}
    assert rate["ticktext"] == ["0.0001", "0.001"]
    assert set(rate["values"]) == {-4, -3}


def test_another_metric_can_rank(uri: str) -> None:
    found = findings(uri, SWEEP, "grad_norm", Mode.MAX)
    assert found.sweep.metric == "grad_norm"
    assert found.importance.note == "all trials have the same result"
    with pytest.raises(NotFound, match="no metric 'los'") as caught:
        findings(uri, SWEEP, "los")
    assert caught.value.hint == "nearest: loss"


def test_a_sweep_that_has_just_begun_can_be_reported(uri: str, tmp_path: Path) -> None:
    run_id = "20260102-120000-5eeeee"
    sweep = open_run(uri, "home", run_id, "a <b>bold</b> sweep", params={}, tags={})
    sweep.set_tags({tags.SWEEP: tags.search_facts(load_sweep("quickstart-sweep").spec.sweep, 8)})
    told = write_report(uri, run_id, tmp_path)
    assert told["best"] is None
    assert told["importance"]["note"].startswith("0 trials can be compared")
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "a &lt;b&gt;bold&lt;/b&gt; sweep" in text
    assert Page(text).plots == []


def test_the_program_prints_the_json_and_writes_the_page(
    uri: str, told: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "new" / "sweep.html"
    assert main([SWEEP, "--tracking-uri", uri, "--html", str(page)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["sweep"].pop("status") == "FINISHED"  # the driver cannot know it
    assert said == told
    assert Page(page.read_text("utf-8")).rows
    assert main(["another", "--tracking-uri", uri]) == 5
