"""Settings come out of a space as it says: each combination once, draws within their domain."""

import random
from collections.abc import Sequence
from typing import Any

from raylora.config.search_space import Domain
from raylora.sweeps.proposals import draw, grid, settings


class Dice:
    """Suggestions at random, by name."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.asked: list[str] = []

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.asked.append(name)
        return self.random.choice(list(choices))

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.asked.append(name)
        return (
            low * (high / low) ** self.random.random() if log else self.random.uniform(low, high)
        )

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        self.asked.append(name)
        return self.random.randrange(low, high + 1, step)


def space(**domains: Any) -> dict[str, Domain]:
    """Keys with __ for the dot."""
    return {
        name.replace("__", "."): Domain.model_validate(domain) for name, domain in domains.items()
    }


def test_a_grid_has_every_combination_once_in_order():
    searched = space(lora__r={"choice": [4, 8]}, training__learning_rate={"choice": [0.1, 0.2]})
    found = [settings(searched, drawn) for drawn in grid(searched, {})]
    assert [(s["lora.r"], s["training.learning_rate"]) for s in found] == [
        (4, 0.1),
        (4, 0.2),
        (8, 0.1),
        (8, 0.2),
    ]


def test_a_grid_counts_ranges():
    assert len(grid(space(a={"integers": [4, 16, 4]}, b={"quniform": [0, 0.3, 0.1]}), {})) == 16


def test_a_key_that_follows_another_is_its_multiple_and_stays_an_integer():
    searched = space(lora__lora_alpha={"times": ["lora.r", 2]}, lora__r={"choice": [4, 8]})
    found = [settings(searched, drawn) for drawn in grid(searched, {})]
    assert found == [{"lora.r": 4, "lora.lora_alpha": 8}, {"lora.r": 8, "lora.lora_alpha": 16}]
    assert all(isinstance(s["lora.lora_alpha"], int) for s in found)


def test_keys_that_move_together_do():
    searched = {"a, b": Domain.model_validate({"choice": [[1, 10], [2, 20]]})}
    assert [settings(searched, drawn) for drawn in grid(searched, {})] == [
        {"a": 1, "b": 10},
        {"a": 2, "b": 20},
    ]


def test_a_condition_on_a_searched_key_holds_whatever_the_order():
    searched = space(
        warmup={"choice": [1, 2], "when": {"scheduler": "cosine"}},
        scheduler={"choice": ["linear", "cosine"]},
    )
    assert [settings(searched, drawn) for drawn in grid(searched, {})] == [
        {"scheduler": "linear"},
        {"scheduler": "cosine", "warmup": 1},
        {"scheduler": "cosine", "warmup": 2},
    ]


def test_a_condition_on_a_key_that_is_not_searched_looks_at_the_base():
    searched = space(a={"choice": [1, 2], "when": {"b": True}})
    assert len(grid(searched, {"b": True})) == 2
    assert grid(searched, {"b": False}) == [{}]


def test_draws_stay_within_their_domain():
    searched = space(
        r={"integers": [4, 16, 4]},
        rate={"loguniform": [1e-5, 1e-3]},
        ratio={"uniform": [0.0, 0.5]},
        step={"quniform": [0.1, 0.5, 0.1]},
        kind={"choice": ["a", None]},
        alpha={"times": ["r", 2]},
        extra={"choice": [1], "when": {"kind": "a"}},
    )
    for seed in range(100):
        dice = Dice(seed)
        found = settings(searched, draw(searched, {}, dice))
        assert found["r"] in (4, 8, 12, 16) and found["alpha"] == 2 * found["r"]
        assert 1e-5 <= found["rate"] <= 1e-3 and 0 <= found["ratio"] <= 0.5
        assert found["kind"] in ("a", None)
        assert ("extra" in found) == (found["kind"] == "a")
        assert min(abs(found["step"] - x) for x in (0.1, 0.2, 0.3, 0.4, 0.5)) < 1e-9
        assert len(dice.asked) == len(set(dice.asked))  # one name is one dimension
