"""`raylora doctor`: look at this machine and say what is missing. Changes nothing."""

import os
import platform
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click
import psutil
from rich.text import Text

from raylora import __version__
from raylora.cli.options import address_option, output_option
from raylora.cli.output import emit, make_table, next_commands
from raylora.cluster import head_state
from raylora.cluster.connect import connect
from raylora.config.places import cache, home
from raylora.errors import NotAuthorised, RayloraError, Unreachable

OLDEST_PYTHON = (3, 11)
ENOUGH_MEMORY = 8_000_000_000
ENOUGH_DISK = 5_000_000_000
BASE = ("ray", "mlflow-skinny", "pydantic", "hydra-core")
EXTRAS = {
    "train": ("torch", "transformers", "peft", "bitsandbytes", "deepspeed", "mlflow", "datasets"),
    "serve": ("torch", "transformers", "bitsandbytes", "fastapi", "mlflow"),
}
BF16_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")
"""Of x86 and ARM: units that multiply bf16 rather than emulate it."""


class Verdict(StrEnum):
    """What a check says."""

    OK = "ok"
    NOTE = "note"
    """Works, but slower or not all of it."""
    BROKEN = "broken"
    """Something essential: doctor exits 1."""


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


@click.command("doctor")
@address_option
@output_option
def command(address: str | None, output: str) -> None:
    """Check this machine and say what is missing."""
    checks = list(examine(address))
    emit(checks, output, lambda: make_table(("check", "", "found", "remedy"), _rows(checks)))
    broken = [check.name for check in checks if check.verdict is Verdict.BROKEN]
    if broken:
        raise RayloraError(f"broken: {', '.join(broken)}")
    next_commands(["raylora quickstart"])


def examine(address: str | None) -> Iterator[Check]:
    """Run every check; none of them raises."""
    yield Check("raylora", Verdict.OK, __version__)
    yield _python()
    yield from (_package(name) for name in BASE)
    yield from (_extra(extra, packages) for extra, packages in EXTRAS.items())
    yield _cores()
    yield _memory()
    yield _disk()
    yield _bf16()
    yield _c_compiler()
    yield _cxx_compiler()
    yield _cluster(address)
    yield _token()
    yield Check("home", Verdict.OK, str(home()))
    yield Check("tracking", Verdict.OK, os.environ.get("RAYLORA_TRACKING_URI") or _default_store())
    yield _model_cache()


def _python() -> Check:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return Check("python", Verdict.OK, found)
    return Check("python", Verdict.BROKEN, found, "install Python 3.11 or newer")


def _package(name: str) -> Check:
    found = _version(name)
    if found:
        return Check(name, Verdict.OK, found)
    return Check(name, Verdict.BROKEN, "not installed", "pip install raylora")


def _extra(extra: str, packages: tuple[str, ...]) -> Check:
    versions = {name: _version(name) for name in packages}
    missing = [name for name, found in versions.items() if found is None]
    if not missing:
        found = ", ".join(f"{name} {found}" for name, found in versions.items())
        return Check(f"extra {extra}", Verdict.OK, found)
    remedy = f"pip install 'raylora[{extra}]' (a machine that only submits needs it not)"
    return Check(f"extra {extra}", Verdict.NOTE, f"without {', '.join(missing)}", remedy)


def _cores() -> Check:
    # What this process may use: a container or taskset can leave it fewer than the machine has.
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else psutil.cpu_count()
    return Check("cores", Verdict.OK, str(usable))


def _memory() -> Check:
    memory = psutil.virtual_memory()
    found = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB available"
    if memory.available >= ENOUGH_MEMORY:
        return Check("memory", Verdict.OK, found)
    return Check("memory", Verdict.NOTE, found, "the quickstart needs up to 8 GB")


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free
    found = f"{free / 1e9:.1f} GB free in {Path.cwd()}"
    if free >= ENOUGH_DISK:
        return Check("disk", Verdict.OK, found)
    return Check("disk", Verdict.NOTE, found, "models, checkpoints and runs want 5 GB")


def _bf16() -> Check:
    flags = _cpu_flags()
    has = [flag for flag in BF16_FLAGS if flag in flags]
    if has:
        return Check("bf16 on the CPU", Verdict.OK, ", ".join(has))
    found = "no such unit" if flags else "unknown on this system"
    return Check("bf16 on the CPU", Verdict.NOTE, found, "CPU training computes in fp32: slower")


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    lines = [line for line in text.splitlines() if line.startswith(("flags", "Features"))]
    return {flag for line in lines for flag in line.partition(":")[2].split()}


def _c_compiler() -> Check:
    found = shutil.which(os.environ.get("CC", "cc"))
    if found:
        return Check("C compiler", Verdict.OK, found)
    remedy = "a batch of many adapters is served faster on a CPU where there is one"
    return Check("C compiler", Verdict.NOTE, "none", remedy)


def _cxx_compiler() -> Check:
    found = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if found:
        return Check("C++ compiler", Verdict.OK, found)
    remedy = "only workers.cpu_comm_op=true needs one, and that is off by default"
    return Check("C++ compiler", Verdict.NOTE, "none", remedy)


def _cluster(address: str | None) -> Check:
    name = "cluster"
    try:
        return Check(name, Verdict.OK, f"{connect(address, start=False).dashboard_url} answers")
    except NotAuthorised as error:
        return Check(name, Verdict.BROKEN, error.message, error.hint or "")
    except Unreachable as error:
        if address is None and head_state.read() is None:
            return Check(name, Verdict.OK, "none running; a command that needs one starts it")
        return Check(name, Verdict.BROKEN, error.message, error.hint or "raylora cluster down")
    except RayloraError as error:
        return Check(name, Verdict.BROKEN, error.message, error.hint or "")


def _token() -> Check:
    path = head_state.places().token
    if not path.exists():
        return Check("token file", Verdict.OK, "none: no local cluster is up")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode == 0o600:
        return Check("token file", Verdict.OK, f"{path}, mode 0600")
    found = f"{path}, mode {mode:04o}: others may read it"
    return Check("token file", Verdict.BROKEN, found, "raylora cluster down; it is made anew")


def _default_store() -> str:
    return "mlflow.db in the spec's outputs folder (SQLite)"


def _model_cache() -> Check:
    folder = cache() / "models"
    models = sorted(path.parent.name for path in folder.glob("*/config.json"))
    return Check("model cache", Verdict.OK, f"{folder}: {', '.join(models) or 'empty'}")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _rows(checks: list[Check]) -> Iterator[tuple[object, ...]]:
    colours: dict[Verdict, str] = {
        Verdict.OK: "green",
        Verdict.NOTE: "yellow",
        Verdict.BROKEN: "red",
    }
    for check in checks:
        verdict = Text(check.verdict, style=colours[check.verdict])
        yield check.name, verdict, check.found, check.remedy
