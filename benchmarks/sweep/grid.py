"""Ranks times learning rates: what the sweeps of the bars search, and their peers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylora.config.sweep_spec import SweepSpec

RANK, ALPHA, RATE = "lora.r", "lora.lora_alpha", "training.learning_rate"
EXPERIMENT = "default"


@dataclass(frozen=True)
class Grid:
    """Every rank with every learning rate, on so many steps of so many rows."""

    ranks: Sequence[int]
    rates: Sequence[float]
    steps: int
    rows_a_step: int

    def __len__(self) -> int:
        return len(self.ranks) * len(self.rates)

    @property
    def rows(self) -> int:
        """That a trial sees."""
        return self.steps * self.rows_a_step

    def settings(self) -> list[dict[str, Any]]:
        """Of each trial, in order."""
        return [
            {RANK: rank, ALPHA: 2 * rank, RATE: rate} for rank in self.ranks for rate in self.rates
        ]

    def spec(self, rows: Path, *, save_steps: int | None = None, **search: Any) -> dict[str, Any]:
        """A SweepSpec of SmolLM2 without what peers do not do: held-out rows and registering.

        `search` is the rest of its section sweep.
        """
        found: dict[str, Any] = {
            "name": "bars",
            "data": {"train": str(rows), "validation": None},
            "tracking": {"system_metrics": False, "experiment": EXPERIMENT},
            "workers": {"num_workers": 1},
            # In no grid: the settings of a trial are what differs from these.
            "lora": {"r": 1, "lora_alpha": 1},
            "training": {
                "learning_rate": 1e-9,
                "max_steps": self.steps,
                "save_steps": save_steps or self.steps,
                "global_batch_size": self.rows_a_step,
                "micro_batch_size": self.rows_a_step,
            },
            "sweep": {
                "space": {
                    RANK: {"choice": list(self.ranks)},
                    ALPHA: {"times": [RANK, 2]},
                    RATE: {"choice": list(self.rates)},
                },
                "searcher": "grid",
                "trials": len(self),
                "on_finish": {"register": False},
                **search,
            },
        }
        # What is wrong with it is said here, and not after a cluster has started.
        SweepSpec.model_validate(found)
        return found


def key_of(settings: Mapping[str, Any]) -> tuple[int, float]:
    """Rank and learning rate, by which trials of two runs are matched."""
    return int(settings[RANK]), float(settings[RATE])


def named(settings: Mapping[str, Any]) -> str:
    """The same for people."""
    rank, rate = key_of(settings)
    return f"r={rank} at {rate:g}"
