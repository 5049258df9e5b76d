"""Whatever is typed or written, the answer is a spec or InvalidConfig."""

import time

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from raylora.config.compose import load_train
from raylora.config.document import parse_document
from raylora.config.judge import judge
from raylora.config.overrides import Assignment, parse_override
from raylora.config.schema import keys_of
from raylora.config.train_spec import TrainSpec
from raylora.errors import InvalidConfig, Problem

KEYS = sorted(keys_of(TrainSpec).fields)
NAMES = st.sampled_from(
    [
        *KEYS,
        "lora.rank_pattern.mlp.up_proj",
        "data.mixture.0.weight",
        "model",
        "experiment",
        "lora.rank",
        "x",
        "hydra.verbose",
        "a..b",
        "",
    ]
)
VALUES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "1",
            "-1",
            "1e999",
            "nan",
            "null",
            "true",
            "[1,2]",
            "[[],{}]",
            "{a:1}",
            "{}",
            "{1:2}",
            "a,b",
        ]
        + [
            "range(3)",
            "int(3)",
            "${lora.r}",
            "${",
            "${x}",
            "???",
            "smollm2",
            "'q",
            '"q"',
            "\\",
            "[",
            "=",
        ]
    ),
    st.integers().map(str),
)
OVERRIDES = st.one_of(
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["", "+", "++", "~", "--"]),
        NAMES,
        st.sampled_from(["=", "=", "=", "", "@a="]),
        VALUES,
    ),
    st.text(max_size=30),
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def explains(problem: Problem) -> bool:
    return bool(problem.message and problem.remedy)


@settings(max_examples=25, deadline=None)
@given(st.lists(OVERRIDES, max_size=4))
def test_any_overrides(overrides: list[str]) -> None:
    try:
        resolved = load_train("quickstart", overrides)
    except InvalidConfig as error:
        assert error.problems
        assert all(explains(problem) for problem in error.problems)
    else:
        assert parse_document(resolved.to_yaml(), "again").data == resolved.spec.model_dump(
            mode="json"
        )


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(KEYS), VALUES)
def test_any_value_of_a_known_key_is_parsed_or_explained(key: str, value: str) -> None:
    try:
        parsed = parse_override(f"{key}={value}", keys_of(TrainSpec))
    except InvalidConfig as error:
        assert all(explains(problem) for problem in error.problems)
    else:
        assert not isinstance(parsed, Assignment) or ".".join(parsed.names) == key


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, PLAIN, max_size=4))
def test_any_yaml(data: dict[str, object]) -> None:
    try:
        document = parse_document(yaml.safe_dump(data, allow_unicode=True), "mine.yaml")
        judge(TrainSpec, document.data, document.source)
    except InvalidConfig as error:
        assert all(explains(problem) for problem in error.problems)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="a:-[]{}&*!|>%@`'\"#,? \t\n0.", max_size=40))
def test_any_text(text: str) -> None:
    try:
        parse_document(text, "mine.yaml")
    except InvalidConfig as error:
        assert all(explains(problem) for problem in error.problems)


def test_huge_overrides_are_refused_quickly() -> None:
    started = time.monotonic()
    for value in ("[" * 3_900, "9" * 3_900, "a," * 1_900, "x" * 100_000):
        try:
            load_train("quickstart", [f"lora.r={value}"])
        except InvalidConfig as error:
            assert error.problems[0].key == "lora.r"
    assert time.monotonic() - started < 10
