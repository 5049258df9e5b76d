"""vLLM's OpenAI server as a child process of the replica, reached on loopback alone."""

import ctypes
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

import httpx

from raylora.config.model_spec import DType
from raylora.config.serve_spec import ServeSpec
from raylora.errors import RayloraError
from raylora.lora import devices
from raylora.lora.sources import LocalModel

log = logging.getLogger(__name__)

MODULE = "vllm.entrypoints.openai.api_server"
"""Not `vllm serve`: the CPU build has no distribution of the name that it looks up."""
DTYPES = {DType.BF16: "bfloat16", DType.FP16: "float16", DType.FP32: "float32"}
STOP_S = 10.0
POLL_S = 0.5
PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: the signal a process gets when its parent dies."""


class VllmServer:
    """A server that has been started; `url` and `headers` reach it once it is ready."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], port: int) -> None:
        """Start the command, which listens on the port of 127.0.0.1."""
        key = secrets.token_urlsafe(32)
        self.url = f"http://127.0.0.1:{port}"
        self.headers = {"Authorization": f"Bearer {key}"}
        # In the environment: arguments are seen by every user of the machine.
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **environment, "VLLM_API_KEY": key},
            stdin=subprocess.DEVNULL,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def wait_until_ready(self, timeout_s: float) -> None:
        """Return once it answers. Raises RayloraError where it ends or takes too long."""
        deadline = time.monotonic() + timeout_s
        with httpx.Client(trust_env=False, timeout=POLL_S * 10) as client:
            while time.monotonic() < deadline:
                if not self.is_alive:
                    raise RayloraError(
                        f"vLLM ended with exit code {self._process.returncode} as it started",
                        hint="the replica's log has its output; vllm.python must name an "
                        "interpreter that has vLLM",
                    )
                try:
                    if client.get(f"{self.url}/health").is_success:
                        return
                except httpx.HTTPError:
                    pass
                time.sleep(POLL_S)
        self.stop()
        raise RayloraError(
            f"vLLM does not answer after {timeout_s:g} s",
            hint="raise vllm.start_timeout_s; the replica's log has its output",
        )

    def stop(self) -> None:
        """End it, and its own processes with it."""
        if self.is_alive:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def start_server(spec: ServeSpec, local: LocalModel, max_length: int) -> VllmServer:
    """Start vLLM as the spec says and wait until it answers."""
    port = _free_port()
    server = VllmServer(command(spec, local, max_length, port), environment(spec), port)
    started = time.monotonic()
    server.wait_until_ready(spec.vllm.start_timeout_s)
    log.info("vLLM answers after %.0f s", time.monotonic() - started)
    return server


def command(spec: ServeSpec, local: LocalModel, max_length: int, port: int) -> list[str]:
    """The server's command line."""
    dtype = "auto" if spec.model.dtype is DType.AUTO else DTYPES[spec.model.dtype]
    if spec.model.dtype is DType.AUTO and not spec.gpus_per_replica:
        # vLLM's auto is bf16 where the checkpoint is, also on CPUs that are slow at it.
        dtype = str(devices.pick().dtype(DType.AUTO)).removeprefix("torch.")
    return [
        spec.vllm.python or sys.executable,
        "-m",
        MODULE,
        "--host=127.0.0.1",
        f"--port={port}",
        f"--model={local.path}",
        f"--served-model-name={spec.model.name}",
        f"--dtype={dtype}",
        f"--max-model-len={max_length}",
        f"--max-num-seqs={spec.batching.max_batch_size}",
        "--enable-lora",
        f"--max-loras={min(spec.max_adapters, spec.batching.max_batch_size)}",
        f"--max-cpu-loras={spec.max_adapters}",
        f"--max-lora-rank={spec.vllm.max_lora_rank}",
        *(["--trust-remote-code"] if spec.model.trust_remote_code else []),
        *spec.vllm.arguments,
    ]


def environment(spec: ServeSpec) -> dict[str, str]:
    """What the server needs beside the replica's own variables."""
    threads = str(max(1, int(spec.cpus_per_replica)))
    return {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": threads,
        # Ray counts CPUs and binds none; vLLM would bind its threads to the first ones it sees,
        # the same for every replica.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _end_with_parent() -> None:
    """In the child: a replica that is killed must not leave a server behind."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
