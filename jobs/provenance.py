"""What an adapter's lineage says besides its data: settings, packages, machine, chat template."""

import hashlib
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from raylora.config.train_spec import TrainSpec
from raylora.jobs.record import PACKAGES, without_passwords

CPUINFO = Path("/proc/cpuinfo")


def provenance(spec: TrainSpec, chat_template: str) -> dict[str, Any]:
    """For the lineage of an adapter that this process has trained."""
    return {
        "spec": without_passwords(spec),
        **made_with(),
        "chat_template_sha256": sha256_of(chat_template),
    }


def made_with() -> dict[str, Any]:
    """The packages and the machine that numbers depend on."""
    return {
        "packages": {package: version(package) for package in PACKAGES},
        "hardware": hardware(),
    }


def hardware() -> dict[str, Any]:
    """This machine, as far as it decides about numbers."""
    return {
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "threads": torch.get_num_threads(),
    }


def sha256_of(text: str) -> str:
    """Of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def _cpu_name() -> str:
    lines = CPUINFO.read_text("utf-8").splitlines() if CPUINFO.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())
