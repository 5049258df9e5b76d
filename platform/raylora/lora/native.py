"""C beside a module, compiled at its first use where there is a C compiler.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from raylora.config.places import cache

_FORMATS = {
    (torch.float32, torch.float32): (),
    (torch.bfloat16, torch.bfloat16): ("-DBF16",),
    (torch.float32, torch.bfloat16): ("-DSTORED_BF16",),
}
_FLAGS = (
    *("-O3", "-march=native", "-fPIC", "-shared"),
    # Sums may be reordered, or they are not vectorised. Infinities and NaNs stay what they are.
    *("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno"),
)
_HERE = Path(__file__).parent
_COMPILE_S = 60.0
_log = logging.getLogger(__name__)
_Kernel = TypeVar("_Kernel")


Number = int | ctypes.c_int64
"""An argument of a call; the latter may be another one from call to call."""


class Slots(NamedTuple):
    """Some slots of a stack: others from call to call."""

    numbers: int
    """Address of them, int64."""
    length: int
    """Address of how many there are, int64."""
    most: int
    """How many there may come to be."""


class Reads(NamedTuple):
    """Memory that a call reads: of each of some slots of a stack, sizes in bytes."""

    stack: int
    slots: Slots
    stride: int
    size: int

    @classmethod
    def of(cls, stack: Tensor, slots: Slots) -> "Reads":
        """All of these slots of a stack [slots, ...], in which a slot lies in one piece."""
        stride, size = stack.stride(0), stack.element_size()
        whole = stack.numel() // max(1, stack.shape[0]) * size
        return cls(stack.data_ptr(), slots, stride * size, whole)

    def parts(self, size: int) -> "tuple[Reads, Reads]":
        """The first bytes of each slot, and the others."""
        others = self._replace(stack=self.stack + size, size=self.size - size)
        return self._replace(size=size), others


class Call(NamedTuple):
    """A call that is made many times: of a kernel with the addresses of tensors, or of torch."""

    function: Callable[..., object]
    args: tuple[Any, ...]
    held: object = None
    """What has to live as long as the call."""
    reads: Sequence[Reads] = ()
    """What may be fetched before it, in the order of use, where that is worth while."""


Adds = Callable[[Mapping[str, Tensor], Tensor], Iterator[Call]]
"""What adds to each layer's output [tokens, out] for the `x` [tokens, in] that they share."""


@functools.cache
def library(
    source: Path, dtype: torch.dtype, *, stored: torch.dtype | None = None
) -> ctypes.CDLL | None:
    """A C file for tensors of this format on the CPU; None where it cannot be had.

    stored: the format of those that are only read, where it is another: bf16 beside fp32.

    The source may include scalar.h, which says what a scalar is, sums.h where the processor has
    AVX2, dots.h where it has AVX512-BF16, and headers beside it.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    formats = (dtype, stored or dtype)
    if formats not in _FORMATS or compiler is None:
        return None
    shown = "-".join(str(each).removeprefix("torch.") for each in dict.fromkeys(formats))
    name = f"{_identity(compiler, source)}-{shown}.so"
    made = cache() / "kernels" / name
    try:
        if not made.exists():
            _compile(compiler, source, made, _FORMATS[formats])
        return ctypes.CDLL(str(made))
    except (OSError, subprocess.SubprocessError) as error:
        _log.info("%s is left to torch: %s", source.stem, error)
        return None


def by_tiles(source: Path, dtype: torch.dtype) -> ctypes.CDLL | None:
    """A C file that includes tiles.h; None also where the system does not let us have them."""
    found = library(source, dtype)
    return found if found is not None and found.usable() else None


def bucket(count: int) -> int:
    """The power of two from `count` on: calls that are made for so many serve fewer as well."""
    return 1 << (count - 1).bit_length()


def required(kernel: _Kernel | None) -> _Kernel:
    """What an earlier look has found."""
    assert kernel is not None
    return kernel


def _compile(compiler: str, source: Path, made: Path, options: Sequence[str]) -> None:
    """Into place at once, so that nobody loads half a file."""
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=made.parent) as folder:
        fresh = Path(folder) / made.name
        own = [f"-I{_HERE}", *options, str(source), "-o", str(fresh), "-lm"]
        command = [compiler, *_FLAGS, *own]
        threaded = subprocess.run(
            [*command, "-fopenmp"], capture_output=True, timeout=_COMPILE_S, check=False
        )
        if threaded.returncode != 0:
            subprocess.run(command, capture_output=True, timeout=_COMPILE_S, check=True)
        fresh.replace(made)


def _identity(compiler: str, source: Path) -> str:
    """What a compiled file is good for: machines that share a home may differ."""
    headers = sorted({*_HERE.glob("*.h"), *source.parent.glob("*.h")})
    parts = [file.read_bytes() for file in (source, *headers)]
    parts += [" ".join(_FLAGS).encode(), compiler.encode(), _processor().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor() -> str:
    """Architecture and instruction sets, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    return platform.machine() + next((line for line in lines if line.startswith("flags")), "")
