import json
from pathlib import Path

import pytest

from raylora.errors import InvalidAdapter
from raylora.lora import manifest


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    root = tmp_path / "d"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("alpha")
    (root / "sub" / "b.txt").write_text("beta")
    manifest.write(root, {"run_id": "r1", "data": {"sha256": "ab"}})
    return root


def test_what_was_written_is_read(directory: Path) -> None:
    record = manifest.read(directory)
    assert record.lineage == {"run_id": "r1", "data": {"sha256": "ab"}}
    assert {name: fact.size for name, fact in record.files.items()} == {"a.txt": 5, "sub/b.txt": 4}
    assert manifest.find_fault(directory) is None


def test_writing_again_records_the_files_of_now(directory: Path) -> None:
    (directory / "c.txt").write_text("c")
    manifest.write(directory, {})
    assert manifest.find_fault(directory) is None
    assert "c.txt" in manifest.read(directory).files


def _edit(directory: Path, change) -> None:
    path = directory / manifest.NAME
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def _name_outside(directory: Path) -> None:
    _edit(directory, lambda r: r["files"].update({"../x": r["files"]["a.txt"]}))


def _absolute_name(directory: Path) -> None:
    _edit(directory, lambda r: r["files"].update({"/etc/hostname": r["files"]["a.txt"]}))


def _link(directory: Path) -> None:
    target = directory.parent / "target"
    target.write_text("alpha")
    (directory / "a.txt").unlink()
    (directory / "a.txt").symlink_to(target)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda d: (d / "a.txt").write_text("alphA"), "a.txt does not match its sha256"),
        (lambda d: (d / "a.txt").write_text("alph"), "a.txt has 4 bytes, raylora.json says 5"),
        (lambda d: (d / "a.txt").unlink(), "a.txt is missing"),
        (lambda d: (d / "new").write_text(""), "new is not in raylora.json"),
        (lambda d: (d / manifest.NAME).unlink(), "there is no raylora.json"),
        (lambda d: (d / manifest.NAME).write_text("{"), "is not a manifest"),
        (lambda d: (d / manifest.NAME).write_text("[" * 100_000), "is not a manifest"),
        (lambda d: (d / manifest.NAME).write_text(" " * (5 << 20)), "more than"),
        (lambda d: _edit(d, lambda r: r.update(extra=1)), "extra: Extra inputs"),
        (lambda d: _edit(d, lambda r: r["files"]["a.txt"].update(sha256="0")), "sha256"),
        (_name_outside, "names '../x', which is not a plain path"),
        (_absolute_name, "names '/etc/hostname', which is not a plain path"),
        (_link, "a.txt is not a regular file"),
    ],
)
def test_damage_is_named(directory: Path, damage, reason: str) -> None:
    damage(directory)
    assert reason in (manifest.find_fault(directory) or "")


def test_reading_no_manifest_is_an_invalid_adapter(tmp_path: Path) -> None:
    with pytest.raises(InvalidAdapter, match=r"there is no raylora.json"):
        manifest.read(tmp_path)
