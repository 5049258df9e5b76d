import json
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from raylora.jobs.data.home_requests import FIELDS, ROWS, samples, write
from raylora.jobs.data.rows import read_rows

SLOTS = FIELDS[1:]


@dataclass(frozen=True)
class Asked:
    """One row of the file."""

    request: str
    answer: dict[str, str | int | None]

    @property
    def values(self) -> set[str]:
        return {str(self.answer[slot]) for slot in SLOTS if self.answer[slot] is not None}

    @property
    def template(self) -> str:
        """The request with every value of the answer masked by its field."""
        text = self.request
        for slot in SLOTS:
            if self.answer[slot] is not None:
                text = re.sub(whole(str(self.answer[slot])), f"{{{slot}}}", text)
        return text


def whole(value: str) -> str:
    """A pattern for the value as whole words; a clock time is one word."""
    return rf"(?<![\w:]){re.escape(value)}(?![\w:])"


def read(split: str) -> list[Asked]:
    rows = read_rows(f"bundled:home_requests/{split}", Path())
    return [Asked(r.messages[0]["content"], json.loads(r.messages[1]["content"])) for r in rows]


@pytest.fixture(scope="module")
def train() -> list[Asked]:
    return read("train")


@pytest.fixture(scope="module")
def heldout() -> list[Asked]:
    return read("heldout")


def unseen(values: set[str], train: list[Asked]) -> set[str]:
    """Values that stand in no training row, be it as another field's value or by chance."""
    text = "\n".join(f"{asked.request}\n{' | '.join(asked.values)}" for asked in train)
    return {value for value in values if not re.search(whole(value), text)}


def test_the_files_are_what_the_generator_writes(tmp_path):
    bundled = files("raylora.jobs.data") / "bundled"
    for path in write(tmp_path):
        assert path.read_bytes() == (bundled / path.name).read_bytes(), path.name


def test_sizes(train, heldout):
    assert len(train) == ROWS["train"] >= 600
    assert len(heldout) == ROWS["heldout"] >= 150
    bundled = files("raylora.jobs.data") / "bundled"
    paths = [Path(str(bundled)) / f"home_requests_{split}.jsonl" for split in ROWS]
    assert sum(path.stat().st_size for path in paths) < 500_000


@pytest.mark.parametrize("split", ROWS)
def test_masking_the_values_gives_the_template_back(split):
    for asked, sample in zip(read(split), samples(split), strict=True):
        assert asked.request == sample.request
        assert asked.template == sample.template


def test_no_heldout_template_occurs_in_training(train, heldout):
    assert not {asked.template for asked in heldout} & {asked.template for asked in train}


def test_no_request_is_asked_twice(train, heldout):
    requests = [asked.request for asked in [*train, *heldout]]
    assert len(set(requests)) == len(requests)


def test_many_heldout_values_never_occur_in_training(train, heldout):
    values = set().union(*(asked.values for asked in heldout))
    assert len(unseen(values, train)) >= 0.3 * len(values)


@pytest.mark.parametrize("slot", SLOTS)
def test_each_slot_has_new_values(train, heldout, slot):
    values = {str(asked.answer[slot]) for asked in heldout if asked.answer[slot] is not None}
    assert len(unseen(values, train)) >= 0.3 * len(values)


def test_half_of_the_heldout_rows_hold_a_new_value(train, heldout):
    new = unseen(set().union(*(asked.values for asked in heldout)), train)
    assert sum(bool(asked.values & new) for asked in heldout) >= 0.5 * len(heldout)


@pytest.mark.parametrize("split", ROWS)
def test_answers_are_strict_json_of_what_the_request_says(split):
    for row in read_rows(f"bundled:home_requests/{split}", Path()):
        answer = json.loads(row.messages[1]["content"])
        assert tuple(answer) == FIELDS
        assert row.messages[1]["content"] == json.dumps(answer, separators=(",", ":"))
        for slot in SLOTS:
            value = answer[slot]
            assert value is None or re.search(whole(str(value)), row.messages[0]["content"])


def test_both_splits_have_every_action_and_every_field_both_ways(train, heldout):
    assert {a.answer["action"] for a in train} == {a.answer["action"] for a in heldout}
    for split in (train, heldout):
        for slot in ("room", "value", "time"):
            assert {asked.answer[slot] is None for asked in split} == {True, False}


def test_the_system_prompt_states_the_schema(train):
    preset = yaml.safe_load((files("raylora.configs") / "data/home_requests.yaml").read_text())
    words = set(re.findall(r"\w+", preset["system_prompt"]))
    assert words >= {*FIELDS, *(str(asked.answer["action"]) for asked in train), "null", "JSON"}
