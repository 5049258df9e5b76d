"""cuda, mps and cpu behind one seam: which one, and what number formats it does well."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch

from raylora.config.model_spec import DType
from raylora.errors import InvalidConfig, Problem

AVX2 = "avx2"
AVX512 = "avx512f"
"""Flags of x86 processors whose registers have 256 and 512 bits for whole instruction sets."""
BF16_DOTS = "avx512_bf16"
"""Flag of x86 processors with dot products of bf16 in 512 bits."""
BF16_TILES = "amx_bf16"
"""Flag of those with matrix units for bf16."""


class DeviceKind(StrEnum):
    """What torch computes on."""

    CUDA = "cuda"
    MPS = "mps"
    CPU = "cpu"


@dataclass(frozen=True)
class Device:
    """One torch device of this process."""

    kind: DeviceKind

    @property
    def torch_device(self) -> torch.device:
        """Device for torch; for cuda the process's current one."""
        return torch.device(self.kind.value)

    def dtype(self, wanted: DType) -> torch.dtype:
        """Compute dtype for a spec. AUTO is bf16 where the hardware multiplies it, else fp32."""
        if wanted is DType.AUTO:
            return torch.bfloat16 if self.has_bf16_units else torch.float32
        if wanted is DType.FP16 and self.kind is DeviceKind.CPU:
            raise InvalidConfig(
                [
                    Problem(
                        "model.dtype",
                        "fp16 is for GPUs, and this machine computes on its CPU",
                        "Write auto, bf16 or fp32",
                    )
                ]
            )
        return _TORCH_DTYPES[wanted]

    @property
    def has_bf16_units(self) -> bool:
        """Whether bf16 is faster than fp32 here.

        On a CPU with AVX512-BF16 or AMX its matrix products are 7 to 8 times those of fp32; on one
        without, torch emulates them and is slower.
        """
        match self.kind:
            case DeviceKind.CUDA:
                return torch.cuda.is_bf16_supported(including_emulation=False)
            case DeviceKind.MPS:
                return True
            case DeviceKind.CPU:
                return not _BF16_FLAGS.isdisjoint(cpu_flags())


def pick() -> Device:
    """Return the best device of this process: cuda, then mps, then cpu."""
    if torch.cuda.is_available():
        return Device(DeviceKind.CUDA)
    if torch.backends.mps.is_available():
        return Device(DeviceKind.MPS)
    return Device(DeviceKind.CPU)


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Instruction set flags of the first core; empty where the system does not list them."""
    if not cpuinfo.exists():
        return frozenset()
    for line in cpuinfo.read_text(encoding="utf-8").splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


_TORCH_DTYPES = {
    DType.BF16: torch.bfloat16,
    DType.FP16: torch.float16,
    DType.FP32: torch.float32,
}
_BF16_FLAGS = frozenset({BF16_DOTS, BF16_TILES, "bf16"})
"""As Linux names them for x86, and for Arm."""
