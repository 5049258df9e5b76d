"""Warm starts on the local head: workers are forks of a process that has done the imports.

A job's processes spend 2 to 7 s of CPU each on importing torch, transformers, peft and deepspeed,
one after another: driver, Ray Train's controller, workers. On the local head `warm_server.py` has
them imported, and jobs run `warm_client.py` in place of python. Jobs that use a GPU do not (a CUDA
context does not survive a fork), nor do those that ask a model hub (its offline switch is read at
import). Linux only.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from raylora.cluster import processes

SERVER = Path(__file__).with_name("warm_server.py")
CLIENT = Path(__file__).with_name("warm_client.py")
SOCKET = "warm.socket"
"""In the head's folder, which only its user may enter."""

MODULES = (
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "peft",
    "bitsandbytes",
    "deepspeed",
    "datasets",
    "mlflow.tracking",
    # Of a SQLite store: 1.8 s of CPU time, which else fall into the first steps.
    "mlflow.store.tracking.sqlalchemy_store",
    "torch.utils.tensorboard.writer",
)
"""What is imported once; what is not installed is left out. Not ray: it reads the job's id out of
the environment when it is loaded."""

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "DS_ACCELERATOR": "cpu",
    # Arrow's allocator would start a thread.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
"""Read at import; a fork that has threads beside it is not safe."""

JOB_ENVIRONMENT = {
    # One node, which nobody takes away: a process less to start.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
"""Of jobs that start warm."""


def start(head: psutil.Process, temp_dir: Path, environment: Mapping[str, str], log: Path) -> None:
    """Start the server of a head. It ends with the head, and is one of its family."""
    if not hasattr(os, "pidfd_open"):
        return
    processes.start_detached(
        [sys.executable, str(SERVER), str(temp_dir / SOCKET), str(head.pid), *MODULES],
        env={**environment, **ENVIRONMENT},
        cwd=temp_dir,
        log=log,
    )


def python(temp_dir: Path) -> tuple[str, ...]:
    """What stands for `python` in a job of this head; itself until the server is ready."""
    if not hasattr(os, "pidfd_open"):
        return ()
    return (sys.executable, "-I", "-S", str(CLIENT), str(temp_dir / SOCKET))
