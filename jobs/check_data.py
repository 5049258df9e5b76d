"""Look at data before training: `python -m raylora.jobs.check_data SPEC [--sample N] [--all]`.

SPEC is a TrainSpec as JSON. Prints the report as JSON, with the rows at which training would stop;
exit code 6 and the reason where a source cannot be read at all.
"""

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raylora.config.model_spec import ModelSpec
from raylora.config.places import cache
from raylora.config.train_spec import TrainSpec
from raylora.jobs.answer import answer
from raylora.jobs.check.report import Options, check


def main(argv: Sequence[str] | None = None) -> int:
    """Run the check; the exit code."""
    parser = argparse.ArgumentParser(prog="raylora.jobs.check_data", description=__doc__)
    parser.add_argument("spec", type=TrainSpec.model_validate_json)
    parser.add_argument("--sample", type=int, default=2000)
    parser.add_argument("--all", action="store_true", dest="every_row")
    parser.add_argument("--preview", type=int, default=2)
    given = parser.parse_args(argv)
    options = Options(given.sample, given.every_row, given.preview)
    return answer(lambda: report(given.spec, options, Path.cwd()))


def report(spec: TrainSpec, options: Options, base_dir: Path) -> dict[str, Any]:
    """What `check` finds, the seconds it took and the most memory it held, in MB."""
    started = time.perf_counter()
    found = check(spec.data, base_dir, options, lambda: _tokenizer(spec.model))
    return {
        **asdict(found),
        "seconds": time.perf_counter() - started,
        "memory_mb": _peak_memory_mb(),
    }


def _tokenizer(model: ModelSpec) -> Any:
    # Takes seconds and 300 MB to import, and is not needed to look at rows as they are.
    from raylora.lora.base import load_tokenizer
    from raylora.lora.sources import fetch

    return load_tokenizer(fetch(model, cache()))


def _peak_memory_mb() -> float:
    """Linux tells kibibytes, macOS bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    sys.exit(main())
