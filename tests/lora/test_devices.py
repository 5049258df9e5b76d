import pytest
import torch

from raylora.config.model_spec import DType
from raylora.errors import InvalidConfig
from raylora.lora import devices
from raylora.lora.devices import Device, DeviceKind

CPU = Device(DeviceKind.CPU)


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ({"avx2", "amx_bf16"}, torch.bfloat16),
        ({"avx512_bf16"}, torch.bfloat16),
        ({"asimd", "bf16"}, torch.bfloat16),
        ({"avx2", "avx512f"}, torch.float32),
        (set(), torch.float32),
    ],
)
def test_auto_on_a_cpu_follows_its_instructions(monkeypatch, flags, dtype) -> None:
    monkeypatch.setattr(devices, "cpu_flags", lambda: frozenset(flags))
    assert CPU.dtype(DType.AUTO) is dtype


def test_flags_are_read_from_cpuinfo(tmp_path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nflags\t\t: fpu amx_bf16\nprocessor\t: 1\nflags\t: x\n")
    assert devices.cpu_flags(path) == {"fpu", "amx_bf16"}
    assert devices.cpu_flags(tmp_path / "none") == frozenset()


def test_a_named_dtype_is_taken(monkeypatch) -> None:
    assert CPU.dtype(DType.FP32) is torch.float32
    assert CPU.dtype(DType.BF16) is torch.bfloat16
    assert Device(DeviceKind.CUDA).dtype(DType.FP16) is torch.float16


def test_fp16_on_a_cpu_says_what_to_write() -> None:
    with pytest.raises(InvalidConfig, match=r"model.dtype.*fp16 is for GPUs.*Write auto"):
        CPU.dtype(DType.FP16)


@pytest.mark.parametrize(
    ("cuda", "mps", "kind"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_pick_prefers_cuda_then_mps(monkeypatch, cuda, mps, kind) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert devices.pick() == Device(DeviceKind(kind))
    assert devices.pick().torch_device == torch.device(kind)
