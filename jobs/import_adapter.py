"""Take over a foreign adapter: `python -m raylora.jobs.import_adapter SOURCE INTO`.

SOURCE is a directory as PEFT writes it, or the id of one on the model hub. What passes the
integrity check is copied to INTO with a manifest, and what it is, is printed as JSON.
"""

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from raylora.errors import NotFound
from raylora.jobs.answer import answer
from raylora.jobs.verify import read_config
from raylora.lora import atomic, hub, manifest
from raylora.lora.adapter_config import CHAT_TEMPLATE, CONFIG, WEIGHTS
from raylora.lora.integrity import AdapterFacts, verify

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
FILES = (WEIGHTS, CONFIG, CHAT_TEMPLATE)
"""What is taken; of other tools' files, such as a README, nothing is."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="raylora.jobs.import_adapter", description=__doc__)
    parser.add_argument("source")
    parser.add_argument("into", type=Path)
    parser.add_argument("--revision", help="commit, branch or tag on the model hub")
    parser.add_argument("--model-config", type=Path, help="config.json of the base")
    given = parser.parse_args(argv)
    return answer(
        lambda: take(given.source, given.into, given.revision, given.model_config),
    )


def take(
    source: str, into: Path, revision: str | None, model_config: Path | None
) -> dict[str, Any]:
    """Facts of the adapter now in `into`. Raises InvalidAdapter, NotFound, Unreachable."""
    base_config = None if model_config is None else read_config(model_config)
    directory = Path(source)
    if directory.is_dir():
        return asdict(_copy(directory, into, base_config, {"source": str(directory.resolve())}))
    if not HUB_ID.fullmatch(source):
        raise NotFound(
            f"there is no folder {source}",
            hint="write the folder that PEFT has saved an adapter in, or OWNER/NAME of the hub",
        )
    commit = hub.resolve_commit(source, revision)
    with tempfile.TemporaryDirectory() as folder:
        hub.download_adapter(source, commit, Path(folder), FILES)
        came = {"source": source, "revision": commit}
        return asdict(_copy(Path(folder), into, base_config, came))


def _copy(
    directory: Path, into: Path, base_config: PretrainedConfig | None, came: dict[str, str]
) -> AdapterFacts:
    """What was checked is what was copied: the check reads the copy."""
    found = verify(directory, base_config=base_config, manifest_required=False, alone=True)
    lineage = {**found.lineage, "imported": came}
    lineage.setdefault("base", {"id": found.base, "revision": found.base_revision})
    with atomic.directory(into) as staged:
        for name in FILES:
            if (directory / name).is_file():
                shutil.copyfile(directory / name, staged / name)
        manifest.write(staged, lineage)
        return verify(staged, base_config=base_config, alone=True)


if __name__ == "__main__":
    sys.exit(main())
