"""What a sweep's trials show, without a store: importance, Pareto front, equal steps, axes."""

import math
import random
from collections.abc import Mapping, Sequence
from itertools import product

import pytest

from raylora.sweeps.report.dimensions import dimensions
from raylora.sweeps.report.equal_steps import EqualSteps, at_equal_steps
from raylora.sweeps.report.importance import LEAST_TRIALS, importance
from raylora.sweeps.report.pareto import front
from raylora.tracking.sweeps import Point


def named(rows: Sequence[Mapping[str, object]]) -> dict[str, Mapping[str, object]]:
    return {f"t{number:02}": row for number, row in enumerate(rows, 1)}


def curve(*values: float, every: int = 1) -> list[Point]:
    return [Point(every * place, value) for place, value in enumerate(values, 1)]


def test_keys_that_move_together_are_one_axis_and_constant_ones_none() -> None:
    rows = [
        {"lora.r": r, "lora.lora_alpha": 2 * r, "training.learning_rate": rate, "lora.bias": "all"}
        for r, rate in product((8, 4), (1e-3, 1e-4))
    ]
    rank, rate = dimensions(named(rows))
    assert rank.keys == ("lora.r", "lora.lora_alpha")
    assert (rank.label, rank.levels) == ("lora.r, lora.lora_alpha", [4, 8])
    assert rank.places == {"t01": 1, "t02": 1, "t03": 0, "t04": 0}
    assert rate.keys == ("training.learning_rate",)


def test_values_that_are_no_numbers_are_in_the_order_in_which_they_appear() -> None:
    rows = [{"x": ["q", "v"]}, {"x": "all"}, {"x": ["q", "v"]}, {}]
    (axis,) = dimensions(named(rows))
    assert not axis.numeric
    assert axis.levels == [["q", "v"], "all", None]
    assert axis.places == {"t01": 0, "t02": 1, "t03": 0, "t04": 2}


def test_true_is_no_number_and_8_is_8_0() -> None:
    flag, size = dimensions(named([{"a": True, "b": 8}, {"a": False, "b": 8.0}, {"a": 1, "b": 4}]))
    assert not flag.numeric
    assert size.levels == [4, 8]


def test_trials_that_were_ended_early_are_compared_where_three_quarters_still_were() -> None:
    curves = {f"t{n}": curve(*[float(n)] * 10) for n in range(6)}
    curves |= {"stopped": curve(9.0, 9.0), "halved": curve(*[8.0] * 5)}
    assert at_equal_steps(curves) == EqualSteps(10, {f"t{n}": float(n) for n in range(6)})
    curves |= {"more": curve(*[7.0] * 5)}
    compared = at_equal_steps(curves)
    assert compared.step == 5
    assert set(compared.values) == {*(f"t{n}" for n in range(6)), "halved", "more"}


def test_the_value_compared_is_the_last_one_known_at_that_step() -> None:
    curves = {"a": curve(3.0, 2.0, every=10), "b": curve(5.0, 4.0, 3.0, every=7), "c": []}
    assert at_equal_steps(curves) == EqualSteps(20, {"a": 2.0, "b": 4.0})
    assert at_equal_steps({"c": []}).values == {}


def test_values_that_are_no_numbers_are_not_compared() -> None:
    curves = {"a": curve(3.0, float("nan")), "b": curve(2.0, 1.0)}
    assert at_equal_steps(curves) == EqualSteps(1, {"a": 3.0, "b": 2.0})


@pytest.mark.parametrize("trials", [8, 20])
def test_the_key_that_matters_is_found(trials: int) -> None:
    dice = random.Random(trials)
    grid = list(product((4, 8, 16, 32), (1e-5, 1e-3)))
    rows: list[dict[str, object]] = []
    losses: list[float] = []
    for number in range(trials):
        rank, rate = grid[number % 8]
        if trials > 8:
            rate = 10 ** dice.uniform(-5, -3)
        rows.append({"lora.r": rank, "training.learning_rate": rate, "seed": number // 2 % 2})
        losses.append(2.0 + (5 + math.log10(rate)) * -0.5 + dice.gauss(0, 0.02))
    settings = named(rows)
    found = importance(
        dimensions(settings), EqualSteps(10, dict(zip(settings, losses, strict=True)))
    )
    assert next(iter(found.shares)) == "training.learning_rate"
    assert found.shares["training.learning_rate"] > 0.6
    assert found.shares["lora.r"] < 0.2
    assert found.shares["seed"] < 0.2
    assert sum(found.shares.values()) + found.interplay == pytest.approx(1, abs=0.02)
    assert found.note == ""


def test_a_choice_of_words_can_be_what_matters() -> None:
    rows = [
        {"training.lr_scheduler": name, "lora.r": rank}
        for name, rank in product(("cosine", "linear", "constant"), (4, 8, 16))
    ]
    settings = named(rows)
    worth = {"cosine": 1.0, "linear": 1.1, "constant": 2.0}
    values = {
        trial: worth[str(row["training.lr_scheduler"])] + 0.001 * place
        for place, (trial, row) in enumerate(settings.items())
    }
    found = importance(dimensions(settings), EqualSteps(5, values))
    assert found.shares["training.lr_scheduler"] > 0.7
    assert found.shares["lora.r"] < 0.1


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([1.0, 2.0, 3.0], f"3 trials can be compared, {LEAST_TRIALS} are needed"),
        ([1.0, 1.0, 1.0, 1.0], "all trials have the same result"),
    ],
)
def test_where_nothing_can_be_said_the_reason_is(values: list[float], why: str) -> None:
    settings = named([{"lora.r": rank} for rank in range(len(values))])
    compared = EqualSteps(1, dict(zip(settings, values, strict=True)))
    found = importance(dimensions(settings), compared)
    assert (found.shares, found.note) == ({}, why)


def test_a_key_with_one_value_among_those_compared_has_no_importance() -> None:
    settings = named([{"lora.r": 4}] * 4 + [{"lora.r": 8}])
    compared = EqualSteps(1, {"t01": 1.0, "t02": 2.0, "t03": 3.0, "t04": 4.0})
    assert importance(dimensions(settings), compared).note == "no key has more than one value"


def test_the_pareto_front_has_what_no_other_point_beats() -> None:
    points = {"a": (1, 9), "b": (2, 5), "c": (3, 5), "d": (4, 1), "e": (9, 9)}
    assert front(points) == ["a", "b", "d"]
    assert front({"a": (1, 1), "b": (1, 1)}) == ["a", "b"]
    assert front({}) == []
