"""What is compiled once and found again, and machines on which nothing can be compiled."""

import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from raylora.lora.native import library

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CC", "cc")) is None, reason="there is no C compiler"
)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where compiled files are; there are none yet, in memory or on disk."""
    monkeypatch.setenv("RAYLORA_CACHE", str(tmp_path / "cache"))
    library.cache_clear()
    yield tmp_path / "cache/kernels"
    library.cache_clear()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """C that says how many bits a scalar has."""
    written = tmp_path / "bits.c"
    written.write_text(
        '#include "scalar.h"\nint bits(void) { return 8 * sizeof(scalar); }\n',
        encoding="utf-8",
    )
    return written


def bits(found: ctypes.CDLL | None) -> int:
    assert found is not None
    return found.bits()


@needs_compiler
def test_a_source_is_compiled_for_each_number_format(kept: Path, source: Path) -> None:
    assert bits(library(source, torch.float32)) == 32
    assert bits(library(source, torch.bfloat16)) == 16
    assert len(list(kept.iterdir())) == 2


@needs_compiler
def test_what_was_compiled_is_found_again(
    kept: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bits(library(source, torch.float32)) == 32
    (made,) = kept.iterdir()
    library.cache_clear()
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("it is there already"))
    assert bits(library(source, torch.float32)) == 32
    assert list(kept.iterdir()) == [made]


@needs_compiler
def test_another_source_is_another_file(kept: Path, source: Path) -> None:
    assert bits(library(source, torch.float32)) == 32
    source.write_text("int bits(void) { return 0; }\n", encoding="utf-8")
    library.cache_clear()
    assert bits(library(source, torch.float32)) == 0
    assert len(list(kept.iterdir())) == 2


@pytest.mark.usefixtures("kept")
def test_without_a_compiler_there_is_none(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert library(source, torch.float32) is None


def test_a_compiler_that_fails_leaves_nothing_behind(
    kept: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken-cc"
    broken.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    assert library(source, torch.float32) is None
    assert list(kept.iterdir()) == []


@needs_compiler
def test_a_source_that_refuses_a_processor_leaves_nothing_behind(kept: Path, source: Path) -> None:
    source.write_text("#error no such instructions\n", encoding="utf-8")
    assert library(source, torch.float32) is None
    assert list(kept.iterdir()) == []


def test_other_number_formats_have_none(source: Path) -> None:
    assert library(source, torch.float16) is None
