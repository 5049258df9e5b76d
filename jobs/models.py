"""Base models on this machine: `python -m raylora.jobs.models list | fetch | convert`.

    list                      every model in the cache
    fetch MODEL               MODEL: a ModelSpec as JSON
    convert GGUF DIRECTORY    a GGUF file as a directory of safetensors

Each prints path, id, revision and name as JSON, `list` a list of them.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from raylora.config.model_spec import ModelSource, ModelSpec
from raylora.config.places import cache
from raylora.errors import NotFound
from raylora.jobs.answer import answer
from raylora.lora import atomic
from raylora.lora.sources import LocalModel, fetch, list_cached


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the three; the exit code."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("raylora").setLevel(logging.INFO)  # says what a long fetch is doing
    parser = argparse.ArgumentParser(prog="raylora.jobs.models", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    commands.add_parser("fetch").add_argument("model", type=ModelSpec.model_validate_json)
    convert_parser = commands.add_parser("convert")
    convert_parser.add_argument("gguf", type=Path)
    convert_parser.add_argument("directory", type=Path)
    arguments = parser.parse_args(argv)
    match arguments.command:
        case "list":
            return answer(lambda: [_fields(model) for model in list_cached(cache())])
        case "fetch":
            return answer(lambda: _fields(fetch(arguments.model, cache())))
        case _:
            return answer(lambda: _fields(convert(arguments.gguf, arguments.directory)))


def convert(gguf: Path, directory: Path) -> LocalModel:
    """Write a GGUF file as a base for model.source=path; the directory must not exist yet."""
    from raylora.lora.gguf import convert as convert_file  # torch, which the others do not need

    if not gguf.is_file():
        raise NotFound(f"there is no file {gguf}")
    final = directory.absolute()
    if final.exists():
        raise NotFound(f"{final} exists already", hint="name a directory that does not exist yet")
    with atomic.directory(final) as staged:
        convert_file(gguf.absolute(), staged)
    model = ModelSpec(source=ModelSource.PATH, id=str(final), name=final.name)
    return fetch(model, cache())


def _fields(model: LocalModel) -> dict[str, str]:
    return {
        "path": str(model.path),
        "id": model.id,
        "revision": model.revision,
        "name": model.name,
    }


if __name__ == "__main__":
    sys.exit(main())
