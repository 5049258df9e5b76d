"""kernel.c, compiled at its first use where there is a C compiler, and called without a copy.

A second after the first start, a dictionary's look-up after that: what was compiled is kept in the
cache, one file for each source, compiler, kind of processor and number format.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from raylora.config.places import cache

_FORMATS = {torch.float32: (), torch.bfloat16: ("-DBF16",)}
_FLAGS = (
    *("-O3", "-march=native", "-fPIC", "-shared"),
    # Sums may be reordered, or they are not vectorised. Infinities and NaNs stay what they are.
    *("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math"),
)
_COMPILE_S = 60.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kernel:
    """The two functions of kernel.c for one number format."""

    library: ctypes.CDLL

    def __post_init__(self) -> None:
        pointer, number, whole = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        batch = ctypes.POINTER(_Batch)
        shrink, expand = self.library.shrink, self.library.expand
        shrink.argtypes = [batch, *(pointer, number) * 2, number, number, pointer, whole]
        expand.argtypes = [batch, *(pointer, number) * 2, number, number, *(pointer,) * 2]
        expand.argtypes += [number, whole]
        shrink.restype = expand.restype = None


class Standing:
    """Which rows of a batch belong to which slot, as the kernel is told."""

    def __init__(self, slots: Sequence[int], rows: Sequence[Sequence[int]]) -> None:
        """rows: batch rows of the adapter in each of `slots`."""
        starts = [0]
        for own in rows:
            starts.append(starts[-1] + len(own))
        self.order = [row for own in rows for row in own]
        """Batch rows, in the order of products and scales."""
        self._held = [torch.tensor(numbers) for numbers in (slots, starts, self.order)]
        pointers = [tensor.data_ptr() for tensor in self._held]
        self.facts = _Batch(len(slots), *pointers)


def shrink(kernel: Kernel, standing: Standing, x: Tensor, a: Tensor) -> Tensor:
    """A x of each row, [rows, ranks], for `x` [batch, in] and `a` [slots, ranks, in]."""
    _, ranks, width = a.shape
    x = x if x.stride(1) == 1 else x.contiguous()
    products = x.new_empty(len(standing.order), ranks)
    kernel.library.shrink(
        standing.facts,
        x.data_ptr(),
        x.stride(0),
        a.data_ptr(),
        a.stride(0),
        width,
        ranks,
        products.data_ptr(),
        torch.get_num_threads(),
    )
    return products


def expand(
    kernel: Kernel,
    standing: Standing,
    products: Tensor,
    b: Tensor,
    scales: Tensor | None,
    out: Tensor,
) -> None:
    """Add to `out` [batch, out], in place, `products` [rows, rank] with `b` [slots, rank, out]."""
    _, rank, width = b.shape
    kernel.library.expand(
        standing.facts,
        products.data_ptr(),
        products.stride(0),
        b.data_ptr(),
        b.stride(0),
        width,
        rank,
        None if scales is None else scales.data_ptr(),
        out.data_ptr(),
        out.stride(0),
        torch.get_num_threads(),
    )


@functools.cache
def load(dtype: torch.dtype) -> Kernel | None:
    """The kernel for tensors of this format on the CPU; None where it cannot be had."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if dtype not in _FORMATS or compiler is None:
        return None
    source = Path(__file__).with_name("kernel.c")
    name = f"{_identity(compiler, source)}-{str(dtype).removeprefix('torch.')}.so"
    made = cache() / "kernels" / name
    try:
        if not made.exists():
            _compile(compiler, source, made, _FORMATS[dtype])
        return Kernel(ctypes.CDLL(str(made)))
    except (OSError, subprocess.SubprocessError) as error:
        _log.info("adapters are added by torch's products: %s", error)
        return None


class _Batch(ctypes.Structure):
    _fields_ = [
        ("adapters", ctypes.c_int64),
        ("slots", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("rows", ctypes.c_void_p),
    ]


def _compile(compiler: str, source: Path, made: Path, options: Sequence[str]) -> None:
    """Into place at once, so that nobody loads half a file."""
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=made.parent) as folder:
        fresh = Path(folder) / made.name
        command = [compiler, *_FLAGS, *options, str(source), "-o", str(fresh)]
        threaded = subprocess.run(
            [*command, "-fopenmp"], capture_output=True, timeout=_COMPILE_S, check=False
        )
        if threaded.returncode != 0:
            subprocess.run(command, capture_output=True, timeout=_COMPILE_S, check=True)
        fresh.replace(made)


def _identity(compiler: str, source: Path) -> str:
    """What a compiled file is good for: machines that share a home may differ."""
    parts = [source.read_bytes(), " ".join(_FLAGS).encode(), compiler.encode()]
    parts.append(_processor().encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor() -> str:
    """Architecture and instruction sets, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    return platform.machine() + next((line for line in lines if line.startswith("flags")), "")
