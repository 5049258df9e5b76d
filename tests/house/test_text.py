"""What no file may say, and what the README must."""

import re
from pathlib import Path

import pytest

UNFINISHED = ("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK", "NotImpl" + "ementedError")
SKIPPED = ("mark." + "skip", "mark." + "xfail", "no " + "cover")
SOURCE = {".py", ".yaml", ".yml", ".toml", ".md"}


@pytest.fixture(scope="module")
def texts(tracked: list[Path], root: Path) -> dict[str, str]:
    """Text of each source file by its path."""
    return {
        file.relative_to(root).as_posix(): file.read_text(encoding="utf-8")
        for file in tracked
        if file.suffix in SOURCE or file.name in {"Makefile", "Dockerfile", "run"}
    }


@pytest.mark.parametrize("word", UNFINISHED + SKIPPED)
def test_nothing_is_left_for_later(texts: dict[str, str], word: str) -> None:
    assert [path for path, text in texts.items() if re.search(rf"\b{word}\b", text)] == []


def test_source_is_ascii(texts: dict[str, str]) -> None:
    assert [
        path for path, text in texts.items() if path.endswith(".py") and not text.isascii()
    ] == []


def test_pins_carry_no_address_and_no_local_part(root: Path) -> None:
    """An address would tie installs to one index, +cpu to one kind of machine."""
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin)] == []
    assert pins == sorted(pins, key=str.lower)


def test_readme_names_the_two_commands(root: Path) -> None:
    readme = (root / "README.md").read_text(encoding="utf-8")
    for command in ("make quickstart", "make test"):
        assert re.search(rf"(?m)^\s*(?:\$ )?{command}\b", readme), f"README lacks `{command}`"


def test_makefile_explains_its_targets(root: Path) -> None:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    explained = set(re.findall(r"(?m)^([a-z-]+):.*## ", makefile))
    wanted = (
        "help setup quickstart test test-slow lint fmt types imports check bars-path bars-setup"
    )
    assert set(wanted.split()) <= explained
