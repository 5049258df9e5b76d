"""Memory and leftovers of everything started under one RAYLORA_HOME.

Ray's processes leave their parent's tree, so they are found by the environment they inherit.
"""

import threading
from pathlib import Path
from types import TracebackType


def processes(home: Path) -> dict[int, str]:
    """Pid to command line of every live process that carries RAYLORA_HOME=home."""
    needle = f"RAYLORA_HOME={home}".encode()
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if needle in (entry / "environ").read_bytes().split(b"\0"):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if command:
                    found[int(entry.name)] = command.strip()[:120]
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


class PeakMemory:
    """Samples the sum of proportional set sizes (PSS) every second while in the block."""

    def __init__(self, home: Path) -> None:
        self.peak_bytes = 0
        self._home = home
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(1.0):
            total = sum(_pss(pid) for pid in processes(self._home))
            self.peak_bytes = max(self.peak_bytes, total)


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass
    return 0
