import multiprocessing
import time
from pathlib import Path

import pytest

from raylora.lora import atomic


def test_a_directory_appears_whole(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "final"
    with atomic.directory(final) as staged:
        (staged / "a").write_text("x")
        assert not final.exists()
    assert (final / "a").read_text() == "x"
    assert [path.name for path in final.parent.iterdir()] == ["final"]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), atomic.directory(tmp_path / "final") as staged:
        (staged / "a").write_text("x")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_published_directory_is_never_replaced(tmp_path: Path) -> None:
    final = tmp_path / "final"
    for text in ("first", "second"):
        try:
            with atomic.directory(final) as staged:
                (staged / "a").write_text(text)
        except FileExistsError as error:
            assert text == "second"
            assert "final exists already" in str(error)
    assert (final / "a").read_text() == "first"


def test_partial_directories_of_a_crash_can_be_removed(tmp_path: Path) -> None:
    final = tmp_path / "final"
    (atomic.stage(final) / "a").write_text("x")
    atomic.stage(tmp_path / "other")
    atomic.remove_partial(final)
    assert [path.name.split(".")[1] for path in tmp_path.iterdir()] == ["other"]


def test_write_text_replaces_a_file(tmp_path: Path) -> None:
    for text in ("one", "two"):
        atomic.write_text(tmp_path / "a", text)
    assert (tmp_path / "a").read_text() == "two"
    assert len(list(tmp_path.iterdir())) == 1


def _append(path: Path) -> None:
    with atomic.locked(path.with_suffix(".lock")):
        seen = path.read_text("utf-8")
        time.sleep(0.02)
        path.write_text(seen + "x", encoding="utf-8")


def test_the_lock_holds_between_processes(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("")
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append, args=(path,)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_text() == "xxxx"
