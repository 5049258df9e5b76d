"""A fresh clone of the committed tree with its own packages, home, caches and outputs."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bars.footprint import processes
from benchmarks.bars.sandbox import Finished, kill, own_environment, run

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Clone:
    """A checkout nobody has touched, and the environment its commands run in."""

    folder: Path

    @property
    def root(self) -> Path:
        """Top of the checkout."""
        return self.folder / "raylora"

    @property
    def home(self) -> Path:
        """RAYLORA_HOME, which marks every process started here."""
        return self.folder / "home"

    @property
    def environment(self) -> dict[str, str]:
        """Every cache of ours and of torch lies beside the checkout."""
        return own_environment() | {
            "RAYLORA_HOME": str(self.home),
            "RAYLORA_CACHE": str(self.folder / "cache"),
            "TORCH_EXTENSIONS_DIR": str(self.folder / "extensions"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.folder / "inductor"),
        }

    def run(self, *command: str, timeout_s: float) -> Finished:
        """Run a command in the checkout."""
        return run(command, self.root, self.environment, timeout_s)

    def raylora(self, *arguments: str, timeout_s: float = 120) -> Finished:
        """Run the checkout's own raylora."""
        return self.run(".venv/bin/raylora", *arguments, timeout_s=timeout_s)

    def leftovers(self) -> dict[int, str]:
        """Processes started by this clone that are still alive."""
        return processes(self.home)

    def empty_caches(self) -> None:
        """Forget models and compiled code; installed packages stay."""
        for name in ("cache", "extensions", "inductor"):
            shutil.rmtree(self.folder / name, ignore_errors=True)


@contextmanager
def clone() -> Iterator[Clone]:
    """Clone the committed tree into a temporary folder; stop and remove it all afterwards."""
    made = Clone(Path(tempfile.mkdtemp(prefix="rlb-")))
    subprocess.run(
        ["git", "clone", "--quiet", "--no-hardlinks", str(REPOSITORY), str(made.root)], check=True
    )
    try:
        yield made
    finally:
        kill(made.home)
        shutil.rmtree(made.folder, ignore_errors=True)
