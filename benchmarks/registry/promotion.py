"""Two hundred promotions and rollbacks of one alias at once, from eight processes."""

import json
import multiprocessing
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bars.bar import Bar, holds, shown
from benchmarks.registry.tracking_server import tracking_server
from raylora.config.train_spec import TrackingSpec
from raylora.errors import NotFound, PromotionConflict
from raylora.tracking.adapters.promotion import history, promote, rollback
from raylora.tracking.adapters.registry import CHAMPION, Registry
from raylora.tracking.location import tracking_uri
from raylora.tracking.runs import open_run

PROCESSES = 8
CALLS = 25
"""Of each process."""
VERSIONS = 5
NAME = "chain"


def measure() -> Iterator[Bar]:
    """In SQLite in a folder, then on an MLflow server."""
    with tempfile.TemporaryDirectory(prefix="rlb-") as folder:
        yield from _measured("sqlite", tracking_uri(TrackingSpec(), folder))
        with tracking_server(Path(folder) / "server") as uri:
            yield from _measured("server", uri)


def _measured(store: str, uri: str) -> Iterator[Bar]:
    registry = Registry(uri)
    _register(registry)
    start = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        ended = Counter(
            outcome
            for outcomes in pool.starmap(_call, [(uri, seed) for seed in range(PROCESSES)])
            for outcome in outcomes
        )
    seconds = time.monotonic() - start
    chain = history(registry, NAME)
    linked = sum(
        decision.number == number
        and decision.from_version == (chain[number - 2].to_version if number > 1 else None)
        for number, decision in enumerate(sorted(chain, key=lambda d: d.number), 1)
    )
    last = max(chain, key=lambda decision: decision.number)
    detail = json.dumps(dict(ended.most_common()))
    name = f"promotions at once ({store})"
    yield holds(f"{name}: one chain", linked, len(chain), "begin where the one before ended")
    final = int(registry.aliases(NAME).get(CHAMPION) == last.to_version)
    yield holds(f"{name}: alias", final, 1, "is the last decision")
    counted = ended["moved"] + ended["stayed"] + ended["nothing earlier"] + ended["conflict"]
    yield holds(f"{name}: accounted for", counted, PROCESSES * CALLS, "calls", detail)
    yield holds(f"{name}: decisions", ended["moved"], len(chain), "calls that moved it")
    yield shown(f"{name}: calls/s", [PROCESSES * CALLS / seconds], detail="imports included")


def _register(registry: Registry) -> None:
    for number in range(VERSIONS):
        run = open_run(registry.uri, NAME, f"run-{number}", NAME, params={}, tags={})
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "adapter_model.safetensors").write_bytes(bytes([number]))
            registry.register(NAME, run, Path(folder), tags={})


def _call(uri: str, seed: int) -> list[str]:
    """What became of each call of one process."""
    registry, dice = Registry(uri), random.Random(seed)
    return [_one(registry, dice) for _ in range(CALLS)]


def _one(registry: Registry, dice: random.Random) -> str:
    try:
        if dice.random() < 0.4:
            return "moved" if rollback(registry, NAME).moved else "stayed"
        wanted = f"{NAME}@{dice.randint(1, VERSIONS)}"
        return "moved" if promote(registry, wanted).moved else "stayed"
    except PromotionConflict:
        return "conflict"
    except NotFound:
        return "nothing earlier"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
