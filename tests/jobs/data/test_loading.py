"""From a spec to examples: counts, mixtures, held-out rows, and the cache behind them."""

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
from tests.templates import TEMPLATES

from raylora.config.data_spec import DataSpec
from raylora.errors import ExitCode, InvalidData
from raylora.jobs.data import cache
from raylora.jobs.data.encode import Encoder
from raylora.jobs.data.examples import IGNORED, Example, ListedExamples
from raylora.jobs.data.loading import held_out, load
from raylora.jobs.data.report import DataReport
from raylora.jobs.data.survey import survey
from raylora.jobs.data.token_store import StoreWriter, open_store

ROW = {"prompt": "hello", "completion": "hi"}


@pytest.fixture(autouse=True)
def stores(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RAYLORA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


@pytest.fixture
def write(tmp_path):
    def lines(*rows: dict, name="rows.jsonl") -> Path:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path

    return lines


def spec(**fields) -> DataSpec:
    return DataSpec.model_validate({"train": "rows.jsonl", "validation": None, **fields})


def rows(count: int) -> list[dict]:
    return [{"prompt": f"q{i}", "completion": f"a{i}"} for i in range(count)]


def answers(tokenizer, examples) -> list[str]:
    return [
        tokenizer.decode([label for label in examples[i].labels if label != IGNORED])
        for i in range(len(examples))
    ]


def test_examples_survive_the_disk(tmp_path):
    examples = [
        Example([5, 70_000, 7], [IGNORED, 70_000, IGNORED]),
        Example([1, 2], [IGNORED, 2]),
        Example([1, 2, 3], [IGNORED, 2, 3], [0.0, 0.5, 1.0]),
        Example([4, 4], [IGNORED, 4]),
    ]
    with StoreWriter(tmp_path) as writer:
        for example in examples:
            writer.add(example)
        writer.finish({"a": 1})
    store, listed = open_store(tmp_path), ListedExamples(examples)
    assert [store[i] for i in range(len(store))] == examples
    assert store.digest == listed.digest
    assert store.lengths.tolist() == listed.lengths.tolist()
    assert store.supervised.tolist() == listed.supervised.tolist()
    assert store.epoch_order(2, 3).tolist() == listed.epoch_order(2, 3).tolist()
    assert store.epoch_size == 4
    assert store.notes == {"a": 1}


def test_rows_become_examples_and_counts(tokenizer, write):
    base = write(*rows(3), {"prompt": "long", "completion": "x" * 200}, {"prompt": "?"})
    loaded = load(spec(max_length=100, truncation="drop", bad_rows="skip"), tokenizer, base)
    assert answers(tokenizer, loaded.train) == [f"a{i}<|im_end|>" for i in range(3)]
    report = loaded.report
    assert (report.rows, report.examples, report.dropped, report.skipped) == (5, 3, 1, 1)
    assert report.tokens == loaded.train.lengths.sum()
    assert report.supervised_tokens == loaded.train.supervised.sum() == 3 * 3
    assert report.problems == (
        f"{base}/rows.jsonl:5: no column 'completion'; the columns are: prompt",
    )
    assert DataReport.of(json.loads(json.dumps(report.as_dict()))) == report
    assert loaded.validation is loaded.validation_examples is None


@pytest.mark.parametrize(
    ("bad", "fields", "says"),
    [
        ({"prompt": "q", "completion": "x" * 99}, {"max_length": 80}, "max_length=80"),
        ({"question": "q"}, {}, "no column 'prompt'; the columns are: question"),
        ({"text": "q"}, {}, "a row of shape text among rows of shape prompt_completion"),
        ({"prompt": "", "completion": "b"}, {}, "column 'prompt' has no content"),
        (
            {"prompt": "q" * 99, "completion": "b"},
            {"max_length": 80, "truncation": "right"},
            "no answer is left in the 80 tokens",
        ),
    ],
)
def test_a_bad_row_is_an_error_with_its_place_or_counted(
    tokenizer, write, stores, bad, fields, says
):
    base = write(ROW, bad, ROW)
    with pytest.raises(InvalidData, match=f"rows.jsonl:2: .*{says}") as caught:
        load(spec(**fields), tokenizer, base)
    assert (caught.value.line, caught.value.exit_code) == (2, ExitCode.DATA)
    assert caught.value.hint
    assert not list(stores.iterdir())
    loaded = load(spec(bad_rows="skip", **fields), tokenizer, base)
    assert (len(loaded.train), loaded.report.skipped) == (2, 1)
    assert says in loaded.report.problems[0]


def test_where_nothing_is_left_the_source_is_named(tokenizer, write):
    base = write({"prompt": "?"}, {"prompt": "!"})
    with pytest.raises(InvalidData, match=r"rows.jsonl: no rows: of 2 in all, 2 cannot be used"):
        load(spec(bad_rows="skip"), tokenizer, base)
    with pytest.raises(InvalidData, match=r"rows.jsonl: no rows: of 0 in all"):
        load(spec(), tokenizer, write())


def test_sources_are_mixed_by_weight(tokenizer, write):
    write(*rows(4))
    base = write({"text": "once"}, {"text": "twice"}, name="more.jsonl")
    mixture = [{"source": "more.jsonl", "weight": 2.0}]
    loaded = load(spec(mixture=mixture), tokenizer, base)
    assert (len(loaded.train), loaded.train.epoch_size, loaded.report.rows) == (6, 8, 6)
    assert "once<|im_end|>" in tokenizer.decode(loaded.train[4].input_ids)


def test_rows_are_held_out_by_ratio_and_by_file(tokenizer, write):
    base = write(*rows(60))
    loaded = load(spec(validation_ratio=0.3), tokenizer, base)
    held = loaded.validation
    assert loaded.validation_examples is not None and held is not None
    assert len(loaded.train) + len(held) == 60
    assert len(held) == len(loaded.validation_examples)
    said = [row.messages[-1]["content"] + "<|im_end|>" for row in held]
    assert answers(tokenizer, loaded.validation_examples) == said
    assert not set(said) & set(answers(tokenizer, loaded.train))
    assert held.source == "30% of rows.jsonl"
    write(*rows(2), name="held.jsonl")
    loaded = load(spec(validation="held.jsonl"), tokenizer, base)
    assert len(loaded.train) == 60
    assert loaded.validation is not None and loaded.validation_examples is not None
    assert len(loaded.validation) == len(loaded.validation_examples) == 2


def test_held_out_text_has_a_loss_and_no_answers(tokenizer, write):
    base = write({"text": "once"}, {"text": "upon"})
    loaded = load(spec(validation="rows.jsonl"), tokenizer, base)
    assert loaded.validation_examples is not None
    assert len(loaded.validation_examples) == 2
    assert loaded.validation is held_out(spec(validation="rows.jsonl"), base) is None


def test_a_survey_names_every_source(write):
    write(*rows(40))
    base = write({"text": "once"}, name="more.jsonl")
    found = survey(spec(mixture=[{"source": "more.jsonl"}], validation_ratio=0.2), base)
    names = [(one.name, one.context) for one in found]
    assert names == [
        ("rows", "training"),
        ("more", "training"),
        ("rows", "validation"),
        ("more", "validation"),
    ]
    assert found[0].rows + found[2].rows == 40
    write({"prompt": "?"})
    with pytest.raises(InvalidData, match=r"rows.jsonl:1: no known shape has the columns: prompt"):
        survey(spec(), base)
    with pytest.raises(InvalidData, match=r"rows.jsonl: no rows"):
        survey(spec(), write())


# --- The cache -----------------------------------------------------------------------------------


@pytest.fixture
def encodings(monkeypatch) -> list[int]:
    """Grows by one whenever rows are encoded."""
    calls: list[int] = []
    encode = Encoder.encode

    def counted(self, found):
        calls.append(1)
        return encode(self, found)

    monkeypatch.setattr(Encoder, "encode", counted)
    return calls


def test_data_is_tokenised_once(tokenizer, write, encodings):
    base = write(*rows(3))
    first = load(spec(), tokenizer, base)
    write(*rows(3), name="copy.jsonl")
    again = load(spec(), tokenizer, base)
    copied = load(spec(train="copy.jsonl"), tokenizer, base)
    assert first.train.digest == again.train.digest == copied.train.digest
    assert first.report == again.report
    assert len(encodings) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"max_length": 300},
        {"system_prompt": "Be brief."},
        {"supervise": "all"},
        {"truncation": "left"},
        {"bad_rows": "skip"},
        {"validation_ratio": 0.5},
        {"shape": "prompt_completion"},
        {"columns": {"prompt": "prompt"}},
    ],
)
def test_settings_that_matter_are_part_of_the_key(tokenizer, write, encodings, fields):
    base = write(*rows(20))
    load(spec(), tokenizer, base)
    before = len(encodings)
    load(spec(packing="best_fit", order="length_grouped", mixture=[]), tokenizer, base)
    assert len(encodings) == before
    load(spec(**fields), tokenizer, base)
    assert len(encodings) > before


def test_content_template_and_tokenizer_are_part_of_the_key(
    tokenizer, make_tokenizer, write, encodings, tmp_path
):
    base = write(*rows(3))
    load(spec(), tokenizer, base)
    load(spec(), make_tokenizer("{# other #}" + tokenizer.chat_template), base)
    load(spec(), TEMPLATES["smollm"].tokenizer(), base)
    (tmp_path / "own.jinja").write_text(TEMPLATES["qwen2"].template, encoding="utf-8")
    load(spec(chat_template="own.jinja"), make_tokenizer(tokenizer.chat_template), base)
    load(spec(), tokenizer, write(*rows(4)))
    assert len(encodings) == 5


@pytest.mark.parametrize("damage", ["tokens", "mask", "index.json", "ends", "all"])
def test_a_damaged_store_is_made_again(tokenizer, write, stores, encodings, damage):
    base = write(*rows(3))
    before = load(spec(), tokenizer, base).train.digest
    (store,) = stores.iterdir()
    if damage == "all":
        shutil.rmtree(store)
        store.mkdir()
    else:
        raw = (store / damage).read_bytes()
        (store / damage).write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert load(spec(), tokenizer, base).train.digest == before
    assert len(encodings) == 2
    assert len(list(stores.iterdir())) == 1


def test_what_a_crash_left_is_swept(tokenizer, write, stores):
    base = write(*rows(3))
    load(spec(), tokenizer, base)
    (store,) = stores.iterdir()
    store.rename(stores / f".{store.name}.0123.partial")
    load(spec(), tokenizer, base)
    assert [path.name for path in stores.iterdir()] == [store.name]


def _race(base: Path, gate, results) -> None:
    gate.wait()
    loaded = load(spec(), TEMPLATES["smollm"].tokenizer(), base)
    results.put((loaded.train.digest, len(loaded.train)))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_processes_that_race_get_the_same(write, stores):
    base = write(*rows(50))
    context = multiprocessing.get_context("fork")
    gate, results = context.Event(), context.Queue()
    racers = [context.Process(target=_race, args=(base, gate, results)) for _ in range(3)]
    for racer in racers:
        racer.start()
    gate.set()
    found = {results.get(timeout=60) for _ in racers}
    for racer in racers:
        racer.join()
    assert len(found) == 1
    assert len(list(stores.iterdir())) == 1


def test_the_code_version_is_part_of_the_key(tokenizer, write, encodings, monkeypatch):
    base = write(*rows(3))
    load(spec(), tokenizer, base)
    monkeypatch.setattr(cache, "CODE_VERSION", cache.CODE_VERSION + 1)
    load(spec(), tokenizer, base)
    assert len(encodings) == 2
