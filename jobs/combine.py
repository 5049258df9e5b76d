"""Combine adapters: `python -m raylora.jobs.combine MODEL_SPEC INTO DIRECTORY... --method ties`.

Writes the adapter to INTO once it has passed the integrity check, and prints what it is as JSON.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raylora.config.model_spec import ModelSpec, Quantization
from raylora.config.places import cache
from raylora.jobs.answer import answer
from raylora.jobs.provenance import made_with
from raylora.lora.base import load_base
from raylora.lora.combining import Method, combine
from raylora.lora.devices import Device, DeviceKind
from raylora.lora.integrity import verify
from raylora.lora.sources import fetch


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="raylora.jobs.combine", description=__doc__)
    parser.add_argument("model", type=ModelSpec.model_validate_json)
    parser.add_argument("into", type=Path)
    parser.add_argument("directories", type=Path, nargs="+")
    parser.add_argument("--method", type=Method, required=True)
    parser.add_argument("--weight", type=float, action="append", required=True)
    parser.add_argument("--density", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--lineage", type=json.loads, required=True)
    return answer(lambda: _combine(parser.parse_args(argv)))


def _combine(given: argparse.Namespace) -> dict[str, Any]:
    # Only matrices are added up: a quantised base has the same layers, and is slower to load.
    spec: ModelSpec = given.model.model_copy(
        update={"quantization": Quantization.NONE, "double_quant": False}
    )
    local = fetch(spec, cache())
    base = load_base(local, spec, Device(DeviceKind.CPU))
    combine(
        base,
        local,
        given.directories,
        given.into,
        method=given.method,
        weights=given.weight,
        density=given.density,
        seed=given.seed,
        lineage=given.lineage | made_with(),
    )
    return asdict(verify(given.into, base_revision=local.revision))


if __name__ == "__main__":
    sys.exit(main())
