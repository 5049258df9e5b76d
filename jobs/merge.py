"""Melt an adapter into its base: `python -m raylora.jobs.merge MODEL ADAPTER INTO --version V`.

Prints what was written, and how near it is to the two together, as JSON.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raylora.config.model_spec import ModelSpec
from raylora.config.places import cache
from raylora.errors import RayloraError
from raylora.jobs.answer import answer
from raylora.lora.devices import pick
from raylora.lora.merged_model import write_merged
from raylora.lora.sources import fetch


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="raylora.jobs.merge", description=__doc__)
    parser.add_argument("model", type=ModelSpec.model_validate_json)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("into", type=Path)
    parser.add_argument("--version", required=True)
    given = parser.parse_args(argv)
    return answer(lambda: _merge(given.model, given.adapter, given.into, given.version))


def _merge(spec: ModelSpec, adapter: Path, into: Path, version: str) -> dict[str, Any]:
    if into.exists():
        raise RayloraError(f"{into} exists already", hint="name a folder that does not exist")
    local = fetch(spec, cache())
    return asdict(write_merged(local, spec, adapter, into, pick(), version))


if __name__ == "__main__":
    sys.exit(main())
