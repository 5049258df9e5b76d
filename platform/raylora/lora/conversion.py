"""The conversion of a GGUF in a process of its own."""

import subprocess
import sys
from pathlib import Path

from raylora.errors import ExitCode, NotFound, RayloraError


def convert_apart(gguf: Path, into: Path) -> None:
    """Run `raylora.lora.gguf.convert` in a child process; raises NotFound as it does.

    In a training worker, transformers' save_pretrained writes on rank 0 alone and leaves any
    other rank that converts with an empty directory.
    """
    # -P: a file in the current folder must not take the place of a package.
    command = [sys.executable, "-P", "-m", "raylora.lora.gguf", str(gguf), str(into)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode == ExitCode.INVALID:
        raise NotFound(done.stderr.strip().splitlines()[-1])
    if done.returncode:
        raise RayloraError(f"{gguf.name} could not be converted:\n{done.stderr[-2000:]}")
