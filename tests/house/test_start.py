"""`raylora --help` answers at once and loads nothing heavy."""

import subprocess
import sys
import time
from pathlib import Path

HEAVY = ("torch", "ray", "mlflow", "transformers")
RAYLORA = Path(sys.executable).with_name("raylora")
HELP_SECONDS = 0.3


def test_help_loads_no_ray_mlflow_or_torch() -> None:
    code = (
        "import sys\n"
        "from raylora.cli.main import main\n"
        "sys.argv = ['raylora', '--help']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "print(loaded, file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stderr.strip() == "[]"
    assert "quickstart" in result.stdout


def test_help_is_quick() -> None:
    """One of several runs: warm, and not the fault of what else the machine does."""
    seconds: list[float] = []
    while len(seconds) < 20 and min(seconds, default=HELP_SECONDS) >= HELP_SECONDS:
        seconds.append(timed_help())
    assert min(seconds) < HELP_SECONDS


def timed_help() -> float:
    """Wall time of one `raylora --help` as its own process."""
    started = time.perf_counter()
    subprocess.run([str(RAYLORA), "--help"], check=True, capture_output=True)
    return time.perf_counter() - started
