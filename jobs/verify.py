"""Check an adapter directory: `python -m raylora.jobs.verify DIRECTORY [--model-config PATH]`.

Prints what it is as JSON; exit code 5 and the reason where it fails the integrity check.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from raylora.errors import NotFound
from raylora.jobs.answer import answer
from raylora.lora.integrity import verify


def main(argv: Sequence[str] | None = None) -> int:
    """Run the check; the exit code."""
    parser = argparse.ArgumentParser(prog="raylora.jobs.verify", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument(
        "--model-config",
        type=Path,
        help="config.json of the base, or its directory: the adapter's layers must fit it",
    )
    arguments = parser.parse_args(argv)
    return answer(lambda: check(arguments.directory, arguments.model_config))


def check(directory: Path, model_config: Path | None) -> dict[str, Any]:
    """Facts of a good adapter; raises InvalidAdapter or NotFound."""
    base_config = None if model_config is None else read_config(model_config)
    return asdict(verify(directory, base_config=base_config, alone=True))


def read_config(path: Path) -> PretrainedConfig:
    """A base's config.json, or that in its directory. Raises NotFound."""
    try:
        return AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise NotFound(f"--model-config {path}: no config of a known model: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
