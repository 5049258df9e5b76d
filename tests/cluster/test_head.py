"""The local head: one for all who ask, guarded, found again, and gone without a trace."""

import json
import os
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from raylora.cluster import head, head_state, processes
from raylora.cluster.connect import connect
from raylora.cluster.head_state import HeadState
from raylora.cluster.transport import request
from raylora.errors import NotAuthorised

ASK = """
import json, os, time
from raylora.cluster import head
from raylora.cluster.connect import connect
began = time.monotonic()
cluster = connect(None)
print(json.dumps([head.running().pid, cluster.dashboard_url, time.monotonic() - began]))
"""
STOP_LIMIT_S = 15


@pytest.fixture
def own_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A home of its own, so that the suite's cluster is left alone; nothing stays behind."""
    monkeypatch.setenv("RAYLORA_HOME", str(tmp_path / "home"))
    yield tmp_path / "home"
    head.stop()


def mode(path: str | Path) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


def belongings(state: HeadState) -> list[psutil.Process]:
    """All processes of a head, itself included; also after its end."""
    family = processes.family(state.id, Path(state.temp_dir), state.process)
    return family + ([state.process] if state.process else [])


@pytest.mark.ray
def test_a_head_is_shared_guarded_replaced_and_ended(own_head: Path) -> None:
    # Two that race get the same head, and it outlives both.
    racers = [
        subprocess.Popen([sys.executable, "-c", ASK], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [json.loads(racer.communicate(timeout=120)[0]) for racer in racers]
    (pid, url, _), (other_pid, other_url, _) = answers
    assert (pid, url) == (other_pid, other_url)
    state = head.running()
    assert state is not None
    assert (state.pid, state.dashboard_url) == (pid, url)

    # A later command reuses it at once, by its address too, whatever the environment says.
    began = time.monotonic()
    assert connect(None).dashboard_url == url
    assert connect(url).is_local
    assert time.monotonic() - began < 2
    assert head.running() == state

    # The files are this user's alone, and without the token nothing is told.
    assert {mode(own_head / "head"), mode(state.temp_dir)} == {0o700}
    assert {mode(state.token_path), mode(own_head / "head" / "state.json")} == {0o600}
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        for path in ("/api/version", "/api/jobs/", "/api/v0/nodes"):
            with pytest.raises(NotAuthorised):
                request("GET", url + path, headers=headers)
    listening = {
        connection.laddr.ip
        for process in belongings(state)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr.port == state.ports["dashboard"]
    }
    assert listening == {"127.0.0.1"}

    # A head that was killed is noticed, and the next command starts another.
    os.kill(state.pid, 9)
    while state.process:
        time.sleep(0.05)
    assert head.running() is None
    second = head.ensure()
    assert second.id != state.id
    assert belongings(state) == []
    assert not Path(state.temp_dir).exists()

    # The end leaves no process, no files.
    before = belongings(second)
    assert len(before) > 5
    began = time.monotonic()
    assert head.stop()
    assert time.monotonic() - began < STOP_LIMIT_S
    assert [process for process in before if processes.is_alive(process)] == []
    assert belongings(second) == []
    assert not Path(second.temp_dir).exists()
    assert not Path(second.token_path).exists()
    assert head.running() is None
    assert not head.stop()


def state_of(process: psutil.Process, temp_dir: Path) -> HeadState:
    return HeadState(
        id="none",
        pid=process.pid,
        create_time=process.create_time(),
        dashboard_url="http://127.0.0.1:1",
        gcs_address="127.0.0.2:1",
        ports={},
        token_path=str(temp_dir / "token"),
        temp_dir=str(temp_dir / "ray"),
        log=str(temp_dir / "log"),
        ready=True,
    )


def test_a_reused_pid_is_not_taken_for_the_head(own_head: Path, tmp_path: Path) -> None:
    mine = state_of(psutil.Process(), tmp_path)
    head_state.write(mine)
    assert head.running() == mine
    head_state.write(replace(mine, create_time=mine.create_time - 100))
    assert head.running() is None
    # Neither is it ended in the head's place: this test would not come back.
    assert head.stop()


def test_a_head_that_is_not_ready_is_not_offered(own_head: Path, tmp_path: Path) -> None:
    head_state.write(replace(state_of(psutil.Process(), tmp_path), ready=False))
    assert head.running() is None
    head_state.forget()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', "null"])
def test_a_damaged_state_file_counts_as_none(own_head: Path, text: str) -> None:
    head_state.places().state.write_text(text, encoding="utf-8")
    assert head.running() is None


def test_what_a_newer_version_wrote_besides_is_no_obstacle(own_head: Path, tmp_path: Path) -> None:
    state = state_of(psutil.Process(), tmp_path)
    head_state.write(state)
    path = head_state.places().state
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"new": 1}), "utf-8")
    assert head.running() == state
    head_state.forget()


def test_ports_are_different_and_free() -> None:
    from raylora.cluster.ports import free_ports

    ports = free_ports(20)
    assert len(set(ports)) == 20
