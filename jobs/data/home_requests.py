"""Home requests: the bundled data set, made by rule from the phrasings and values below.

A row asks for one thing in plain English and answers with one JSON object. The held-out split
uses phrasings that no training row uses, and about half of its rooms, devices, numbers and times
are new. `python -m raylora.jobs.data.home_requests OUT` writes both files again, byte for byte.
"""

import json
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from raylora.jobs.data.home_phrasings import HELDOUT, TRAIN, Vocabulary

FIELDS: Final = ("action", "device", "room", "value", "time")
"""Keys of every answer, in this order; null where the request does not say."""

ROWS: Final[Mapping[str, int]] = {"train": 640, "heldout": 160}

_VOCABULARIES: Final[Mapping[str, Vocabulary]] = {"train": TRAIN, "heldout": HELDOUT}
_SEEDS: Final[Mapping[str, int]] = {"train": 1, "heldout": 2}


@dataclass(frozen=True)
class Sample:
    """One row with its origin: the phrasing, the values put into it, and the answer."""

    template: str
    slots: Mapping[str, str]
    answer: Mapping[str, str | int | None]

    @property
    def request(self) -> str:
        """What the user says."""
        return self.template.format(**self.slots)

    @property
    def line(self) -> str:
        """The row as one JSON line."""
        answer = json.dumps(self.answer, separators=(",", ":"))
        messages = [
            {"role": "user", "content": self.request},
            {"role": "assistant", "content": answer},
        ]
        return json.dumps({"messages": messages}, separators=(",", ":"))


def samples(split: str) -> Iterator[Sample]:
    """Yield the rows of a split; no request occurs twice."""
    vocabulary = _VOCABULARIES[split]
    dice = random.Random(_SEEDS[split])
    actions = sorted(vocabulary.phrasings)
    seen: set[str] = set()
    while len(seen) < ROWS[split]:
        sample = _sample(vocabulary, actions[len(seen) % len(actions)], dice)
        if sample.request not in seen:
            seen.add(sample.request)
            yield sample


def write(directory: Path) -> list[Path]:
    """Write home_requests_train.jsonl and home_requests_heldout.jsonl; return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for split in ROWS:
        path = directory / f"home_requests_{split}.jsonl"
        lines = (sample.line + "\n" for sample in samples(split))
        path.write_text("".join(lines), encoding="ascii", newline="\n")
        paths.append(path)
    return paths


def _sample(vocabulary: Vocabulary, action: str, dice: random.Random) -> Sample:
    """Draw a phrasing, whether it names a room and a time, and the values."""
    where = dice.choice(vocabulary.places) if dice.random() < 0.7 else ""
    when = dice.choice(vocabulary.moments) if dice.random() < 0.4 else ""
    core = dice.choice(vocabulary.phrasings[action])
    template = core.replace("{where}", where).replace("{when}", when)
    drawn = {
        "device": dice.choice(vocabulary.devices[action]),
        "room": dice.choice(vocabulary.rooms),
        "value": str(dice.choice(vocabulary.numbers)),
        "time": dice.choice(vocabulary.times),
    }
    slots = {name: value for name, value in drawn.items() if f"{{{name}}}" in template}
    answer: dict[str, str | int | None] = {"action": action}
    answer |= {field: slots.get(field) for field in FIELDS[1:]}
    if "value" in slots:
        answer["value"] = int(slots["value"])
    return Sample(template, slots, answer)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
