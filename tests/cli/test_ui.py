"""`raylora ui`: a server of MLflow's pages, started, found again and stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from raylora.cli.main import cli
from raylora.tracking.ui_server import STATE


@pytest.mark.slow
def test_it_is_started_found_again_and_stopped(tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    raylora = str(Path(sys.executable).with_name("raylora"))
    ui = [raylora, "ui", "--port", "0", "--outputs", str(tmp_path), "--output", "json"]
    first = subprocess.Popen(ui, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None
        url = json.loads("".join(iter(first.stdout.readline, "}\n")) + "}")["url"]
        assert url.startswith("http://127.0.0.1:")
        assert "MLflow" in httpx.get(url, timeout=10).text
        again = subprocess.run(ui, capture_output=True, text=True, timeout=60, check=True)
        assert json.loads(again.stdout) == {"url": url}
        server = json.loads((tmp_path / STATE).read_text())["pid"]
    finally:
        first.send_signal(signal.SIGINT)
        assert first.wait(60) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, timeout=5)
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)
    assert not (tmp_path / STATE).exists()


def test_a_server_that_is_named_is_shown(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        cli, ["ui", "--tracking-uri", "http://user:secret@mlflow.example:5000", "-o", "json"]
    )
    assert json.loads(result.stdout) == {"url": "http://mlflow.example:5000"}


def test_nothing_tracked_is_said(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["ui", "--outputs", str(tmp_path)])
    assert result.exit_code == 5
    assert "nothing has been tracked" in result.stderr
