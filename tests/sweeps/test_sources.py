"""Settings to try: listed beforehand, or estimated from the trials before."""

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from raylora.config.sweep_spec import SweepSpec
from raylora.sweeps.sources import Outcome, Source, source_of

RATE = "training.learning_rate"


RATES = {RATE: {"loguniform": [1e-5, 1e-2]}}
FOUR = {"lora.r": {"choice": [4, 8]}, RATE: {"choice": [1e-4, 1e-3]}}


def spec(
    searcher: str, trials: int | None = 8, space: Mapping[str, Any] = FOUR, seed: int = 0
) -> SweepSpec:
    search = {"space": space, "searcher": searcher, "trials": trials, "seed": seed}
    return SweepSpec.model_validate({"training": {"max_steps": 20}, "sweep": search})


def drain(source: Source) -> dict[int, Mapping[str, Any]]:
    found: dict[int, Mapping[str, Any]] = {}
    while (proposed := source.next()) is not None:
        found[proposed[0]] = proposed[1]
    return found


def test_a_grid_is_all_combinations_and_no_more_than_asked_for(tmp_path: Path):
    everything = drain(source_of(spec("grid", None), tmp_path, []))
    assert list(everything.values()) == [
        {"lora.r": r, RATE: rate} for r in (4, 8) for rate in (1e-4, 1e-3)
    ]
    assert len(drain(source_of(spec("grid", 3), tmp_path, []))) == 3


def test_random_settings_follow_from_the_seed(tmp_path: Path):
    ours, other = (spec("random", 20, RATES, seed) for seed in (0, 1))
    first, second = (drain(source_of(ours, tmp_path, [])) for _ in range(2))
    assert first == second != drain(source_of(other, tmp_path, []))
    assert all(1e-5 <= found[RATE] <= 1e-2 for found in first.values())


@pytest.mark.parametrize("searcher", ["grid", "random"])
def test_what_was_proposed_before_is_not_proposed_again(tmp_path: Path, searcher: str):
    everything = drain(source_of(spec(searcher, 4), tmp_path, []))
    source = source_of(spec(searcher, 4), tmp_path, [0, 2])
    assert source.left == 2
    assert drain(source) == {place: everything[place] for place in (1, 3)}


def lossy(settings: Mapping[str, Any]) -> float:
    """The lowest where the rate is 0.003; the rank does not matter."""
    return abs(math.log10(settings[RATE] / 3e-3))


def losses_of(searcher: str, folder: Path, seed: int) -> list[float]:
    folder.mkdir(exist_ok=True)
    space = {RATE: {"loguniform": [1e-6, 1e-1]}, "lora.r": {"choice": [4, 8]}}
    source = source_of(spec(searcher, 40, space, seed), folder, [])
    losses: list[float] = []
    while (proposed := source.next()) is not None:
        losses.append(lossy(proposed[1]))
        source.over(proposed[0], Outcome(20, losses[-1], whole=True))
    return losses


def test_the_estimator_learns_where_to_look(tmp_path: Path):
    drawn: list[float] = []
    estimated: list[float] = []
    for seed in range(3):
        drawn += losses_of("random", tmp_path, seed)
        estimated += losses_of("tpe", tmp_path / str(seed), seed)[20:]
    assert len(drawn) == 2 * len(estimated) == 120
    assert median(estimated) < 0.6 * median(drawn)


def test_the_estimator_keeps_what_it_has_seen(tmp_path: Path):
    wanted = spec("tpe", 6, RATES)
    source = source_of(wanted, tmp_path, [])
    told: dict[int, float] = {}
    for _ in range(4):
        token, settings = source.next() or (0, {})
        told[token] = lossy(settings)
    source.over(0, Outcome(20, told[0], whole=True))
    source.over(1, Outcome(5, told[1], whole=False))

    again = source_of(wanted, tmp_path, list(told))
    assert again.left == 2
    again.over(0, Outcome(20, told[0], whole=True))  # told before: no harm
    again.over(2, Outcome(5, told[2], whole=False))
    again.over(3, Outcome(0, None, whole=False))
    assert list(drain(again)) == [4, 5]


def test_keys_that_do_not_apply_are_left_out(tmp_path: Path):
    space = {
        "training.lr_scheduler": {"choice": ["linear", "wsd"]},
        "training.decay_ratio": {"uniform": [0.1, 0.4], "when": {"training.lr_scheduler": "wsd"}},
    }
    for searcher in ("random", "tpe"):
        found = drain(source_of(spec(searcher, 12, space), tmp_path, []))
        for settings in found.values():
            is_wsd = settings["training.lr_scheduler"] == "wsd"
            assert ("training.decay_ratio" in settings) is is_wsd
        assert len({settings["training.lr_scheduler"] for settings in found.values()}) == 2
