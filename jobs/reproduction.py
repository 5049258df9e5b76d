"""Whether an adapter that was trained again is the one that was registered."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from raylora.lora import manifest
from raylora.lora.adapter_config import WEIGHTS
from raylora.tracking.adapters.lineage import Lineage

TOLERANCE = 0.02
"""Of a metric: absolute below 1, such as of shares, relative above. Kernels of other machines and
other orders of summation change single answers."""
ALIKE = ("packages", "hardware")
DECISIVE = ("model", "lora", "training", "workers")
"""Parts of a lineage, and of its spec, that must be equal before the same bits are expected."""


@dataclass(frozen=True)
class Compared:
    """A metric of both; None where one has none."""

    metric: str
    registered: float | None
    again: float | None

    @property
    def close(self) -> bool:
        """Within TOLERANCE of each other. A missing one is not."""
        if self.registered is None or self.again is None:
            return False
        return abs(self.again - self.registered) <= TOLERANCE * max(1.0, abs(self.registered))


@dataclass(frozen=True)
class Reproduction:
    """An adapter beside the version that it should be."""

    version: str
    same_bits: bool
    bits_expected: bool
    """One CPU worker, the same packages and the same kind of machine."""
    largest_difference: float
    """Between two weights."""
    same_data: bool
    metrics: list[Compared]

    @property
    def faults(self) -> list[str]:
        """What speaks against it."""
        found: list[str] = []
        if not self.same_data:
            found.append("the training data became other tokens")
        if self.bits_expected and not self.same_bits:
            found.append(
                f"the weights differ by up to {self.largest_difference:.2g}, and one CPU worker "
                "on the same machine gives the same bits"
            )
        found += [
            f"{c.metric} was {_shown(c.registered)} and is {_shown(c.again)}"
            for c in self.metrics
            if not c.close
        ]
        return found

    @property
    def reproduced(self) -> bool:
        """Whether nothing does."""
        return not self.faults

    def lines(self) -> Iterator[str]:
        """For people."""
        same = "the same bits" if self.same_bits else f"up to {self.largest_difference:.2g} apart"
        yield f"weights of {self.version} and of its rerun: {same}"
        for c in self.metrics:
            verdict = f"within {TOLERANCE:g}" if c.close else f"NOT within {TOLERANCE:g}"
            yield f"{c.metric}: {_shown(c.registered)} -> {_shown(c.again)}, {verdict}"

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "faults": self.faults, "reproduced": self.reproduced}

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.as_dict(), indent=2) + "\n"


def compare(
    lineage: Lineage, registered: Path, again: Path, metrics: Mapping[str, float]
) -> Reproduction:
    """`registered` and `again` are adapter directories; `metrics` are those of the second.

    Compared are the metrics that the registered one's run has under the same names.
    """
    ours, theirs = manifest.read(again).lineage, lineage.facts
    spec = theirs.get("spec") or {}
    alike = all(ours.get(key) == theirs.get(key) for key in ALIKE)
    alike = alike and all(ours["spec"][key] == spec.get(key) for key in DECISIVE)
    workers = ours["spec"]["workers"]
    lonely = workers["num_workers"] == 1 and not workers["gpus_per_worker"]
    same = (registered / WEIGHTS).read_bytes() == (again / WEIGHTS).read_bytes()
    named = [name for name in metrics if not name.startswith("heldout_base_")]
    return Reproduction(
        version=lineage.version,
        same_bits=same,
        bits_expected=alike and lonely,
        largest_difference=0.0 if same else _largest_difference(registered, again),
        same_data=ours["data"]["sha256"] == (theirs.get("data") or {}).get("sha256"),
        metrics=[Compared(name, lineage.metrics.get(name), metrics[name]) for name in named],
    )


def _largest_difference(registered: Path, again: Path) -> float:
    """Infinite where the two are not of one shape."""
    a, b = load_file(registered / WEIGHTS), load_file(again / WEIGHTS)
    if {key: t.shape for key, t in a.items()} != {key: t.shape for key, t in b.items()}:
        return float("inf")
    return max(float((a[key].float() - b[key].float()).abs().max()) for key in a)


def _shown(value: float | None) -> str:
    return "missing" if value is None else f"{value:.6g}"
