import pytest

from raylora.errors import ExitCode, InvalidConfig
from raylora.jobs.metrics import choose, exact_match, json_fields, json_valid

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
