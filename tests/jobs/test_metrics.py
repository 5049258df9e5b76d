import pytest

from raylora.errors import ExitCode, InvalidConfig
from raylora.jobs.metrics import (
    choose,
    exact_match,
    json_fields,
    json_valid,
    regex_match,
    rouge_l,
    token_f1,
)

REFERENCE = '{"action":"set","room":null,"value":40,"time":"07:30"}'


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        (REFERENCE, 1),
        (' {"time": "07:30", "value": 40, "room": null, "action": "set"}\n', 1),
        (REFERENCE.replace("40", "41"), 0),
        (REFERENCE.replace("40", "40.0"), 0),
        (REFERENCE.replace("40", '"40"'), 0),
        (REFERENCE.replace("}", ',"more":1}'), 0),
        ('{"action":"set","room":null,"value":40}', 0),
        (REFERENCE.replace("{", '{"action":"on",'), 0),
        (f"Here you are: {REFERENCE}", 0),
        (REFERENCE[:-1], 0),
        ("", 0),
    ],
)
def test_exact_match_compares_json_by_value(answer, score):
    assert exact_match(answer, REFERENCE) == score


def test_exact_match_tells_numbers_from_booleans():
    assert exact_match("true", "1") == 0
    assert exact_match('{"on":1}', '{"on":true}') == 0
    assert exact_match('{"on":true}', '{"on":true}') == 1


def test_exact_match_of_text_ignores_white_space_around_it():
    assert exact_match(" yes\n", "yes") == 1
    assert exact_match("yes, sir", "yes") == 0


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        (REFERENCE, 1),
        ("[1, 2]", 1),
        ('{"a":1,"a":2}', 0),
        ('{"a":NaN}', 0),
        ("{'a': 1}", 0),
        ("```json\n{}\n```", 0),
        ("[" * 100_000, 0),
        ("", 0),
    ],
)
def test_json_valid_takes_the_whole_answer(answer, score):
    assert json_valid(answer, REFERENCE) == score


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        (REFERENCE, 1),
        (REFERENCE.replace("40", "41"), 0.75),
        ('{"action":"set","room":null,"extra":1}', 0.5),
        ("{}", 0),
        ("null", 0),
        ("set", 0),
    ],
)
def test_json_fields_is_the_share_of_right_fields(answer, score):
    assert json_fields(answer, REFERENCE) == score


def test_json_fields_needs_a_null_to_be_said():
    assert json_fields("{}", '{"room":null}') == 0


@pytest.mark.parametrize("reference", ["yes", "[1]", "{}"])
def test_json_fields_without_fields_is_exact_match(reference):
    assert json_fields(reference, reference) == 1
    assert json_fields("no", reference) == 0


def test_metrics_are_chosen_by_name():
    assert choose(("json_valid",)) == {"json_valid": json_valid}
    with pytest.raises(InvalidConfig) as caught:
        choose(("exact_match", "bleu", "rouge"))
    assert [p.key for p in caught.value.problems] == ["evaluation.metrics"] * 2
    assert "'bleu'" in caught.value.message
    assert "json_fields" in caught.value.message
    assert caught.value.exit_code is ExitCode.INVALID


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("The cat sat.", "the cat", 0.8),
        ("cat the", "the cat", 1),
        ("a a b", "a b b", 2 / 3),
        ("\u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5", "\u03b3\u03b5\u03b9\u03ac", 2 / 3),
        ("", "x", 0),
        ("!", "?", 1),
    ],
)
def test_token_f1_counts_shared_words(answer, reference, score):
    assert token_f1(answer, reference) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("the cat sat", "the cat is sat", 6 / 7),
        ("sat cat the", "the cat sat", 1 / 3),
        ("\u03b3\u03b5\u03b9\u03ac", "\u0393\u03b5\u03b9\u03ac!", 1),
        ("", "x", 0),
        ("...", "", 1),
    ],
)
def test_rouge_l_follows_the_order_of_words(answer, reference, score):
    assert rouge_l(answer, reference) == pytest.approx(score)


def test_a_pattern_may_be_anywhere():
    assert regex_match(r"\d{2}:\d{2}")("at 07:30 sharp", "") == 1
    assert regex_match(r"^\d{2}")("at 07:30", "") == 0
