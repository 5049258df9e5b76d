"""Paths, and run ids that sort by time."""

import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from raylora.config.places import cache, home, new_run_id, run_dir


def test_home_and_cache_follow_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAYLORA_HOME", "")
    monkeypatch.delenv("RAYLORA_CACHE", raising=False)
    assert home() == tmp_path / ".raylora"
    assert cache() == tmp_path / ".cache" / "raylora"
    monkeypatch.setenv("RAYLORA_HOME", "~/state")
    monkeypatch.setenv("RAYLORA_CACHE", "relative")
    assert home() == tmp_path / "state"
    assert cache() == Path.cwd() / "relative"


def test_the_folders_of_a_run_are_named_and_not_made(tmp_path: Path) -> None:
    places = run_dir(tmp_path, "default", "20260101-120000-a1b2c3")
    root = tmp_path / "experiments/default/runs/20260101-120000-a1b2c3"
    assert places.root == root
    assert places.adapter == root / "artifacts/adapter"
    assert places.tokenizer == root / "artifacts/tokenizer"
    assert places.merged == root / "artifacts/merged"
    assert (places.checkpoints, places.logs) == (root / "checkpoints", root / "logs")
    assert places.metadata == root / "metadata"
    assert not list(tmp_path.iterdir())


def test_run_ids_are_utc_and_unlike_each_other() -> None:
    moment = datetime(2026, 1, 1, 14, 0, tzinfo=timezone(timedelta(hours=2)))
    assert re.fullmatch(r"20260101-120000-[0-9a-f]{6}", new_run_id(moment))
    now = datetime.now(UTC)
    assert len({new_run_id(now) for _ in range(50)}) == 50
    assert new_run_id() > new_run_id(now - timedelta(days=1))
