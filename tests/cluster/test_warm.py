"""The warm server and its client as what they are: programs."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from raylora.cluster import warm
from raylora.cluster.bundle import Bundle, build
from raylora.cluster.connect import Cluster
from raylora.cluster.jobs import JobClient

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux only")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Short: a socket's path has at most 107 characters."""
    with tempfile.TemporaryDirectory(prefix="warm", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def socket(folder: Path) -> Iterator[Path]:
    """A server that has `colorsys` imported, which nothing else would."""
    head = subprocess.Popen(["sleep", "100"])
    warm_socket = folder / warm.SOCKET
    server = subprocess.Popen(
        [sys.executable, str(warm.SERVER), str(warm_socket), str(head.pid), "colorsys", "no_such"]
    )
    wait_until(warm_socket.exists)
    yield warm_socket
    head.kill()
    head.wait()
    assert server.wait(5) == 0


@pytest.fixture
def python(socket: Path) -> tuple[str, ...]:
    return warm.python(socket.parent)


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.02)


def program(folder: Path, text: str) -> str:
    path = folder / "program.py"
    path.write_text(text, encoding="utf-8")
    return str(path)


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NAME": "value"}
    return subprocess.run(
        command, env=environment, cwd="/", input="hello", capture_output=True, text=True
    )


def test_a_program_gets_what_python_would_give_it(python, folder) -> None:
    text = (
        "import os, sys\n"
        "print(sys.argv[1:], os.environ['NAME'], os.getcwd(), __name__, __file__)\n"
        "print(sys.stdin.read(), file=sys.stderr)\n"
        "sys.exit(7)\n"
    )
    command = [program(folder, text), "a", "b c"]
    ours, theirs = run([*python, *command]), run([sys.executable, *command])
    assert (ours.returncode, ours.stdout, ours.stderr) == (7, theirs.stdout, theirs.stderr)


@pytest.mark.parametrize("end", ["", "sys.exit()", "sys.exit('no')", "sys.exit(300)", "1 / 0"])
def test_a_program_ends_as_it_would_under_python(python, folder, end) -> None:
    text = (
        "import atexit, sys, threading, time\n"
        "atexit.register(print, 'at exit')\n"
        "late = lambda: (time.sleep(0.2), print('a thread is waited for'))\n"
        "threading.Thread(target=late).start()\n"
        f"{end}\n"
    )
    command = [program(folder, text)]
    ours, theirs = run([*python, *command]), run([sys.executable, *command])
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    assert ours.stderr.splitlines()[-1:] == theirs.stderr.splitlines()[-1:]


def test_imports_are_there_already_and_threads_are_not(python, folder) -> None:
    text = (
        "import os, sys\n"
        "print('colorsys' in sys.modules, len(os.listdir('/proc/self/task')))\n"
        "assert not any(name.startswith('raylora') for name in sys.modules)\n"
    )
    command = [*python, program(folder, text)]
    assert subprocess.check_output(command, text=True).split() == ["True", "1"]


def test_a_module_is_found_on_the_path_of_the_environment(python, tmp_path) -> None:
    (tmp_path / "mine.py").write_text("import sys; print(sys.argv[1:], __name__)")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    found = subprocess.check_output([*python, "-m", "mine", "x"], env=environment, text=True)
    assert found == "['x'] __main__\n"


def test_forks_do_not_draw_the_same_numbers(python, folder) -> None:
    command = [*python, program(folder, "import random; print(random.random())")]
    assert len({subprocess.check_output(command) for _ in range(3)}) == 3


def test_a_signal_reaches_the_program_and_its_end_comes_back(python, folder) -> None:
    text = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(0.05)\n"  # a signal just before a sleep is seen after it
    )
    running = subprocess.Popen([*python, program(folder, text)], stdout=subprocess.PIPE)
    assert running.stdout is not None and running.stdout.readline() == b"up\n"
    running.terminate()
    assert running.wait(5) == 5


def test_a_program_that_is_killed_looks_killed(python, folder) -> None:
    text = "import os; os.kill(os.getpid(), 9)"
    assert subprocess.run([*python, program(folder, text)]).returncode == -signal.SIGKILL


def test_a_client_that_is_killed_takes_its_program_along(python, folder) -> None:
    text = "import os, time; print(os.getpid(), flush=True); time.sleep(30)"
    running = subprocess.Popen([*python, program(folder, text)], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    child = int(running.stdout.readline())
    running.kill()
    running.wait()
    wait_until(lambda: not psutil.pid_exists(child))


def test_the_end_of_a_programs_group_leaves_the_server_alone(python, folder) -> None:
    text = "import os; os.killpg(0, 9)"
    assert subprocess.run([*python, program(folder, text)]).returncode == -signal.SIGKILL
    assert subprocess.run([*python, program(folder, "")]).returncode == 0


def test_without_a_server_python_takes_over(tmp_path) -> None:
    command = [
        *warm.python(tmp_path),
        program(tmp_path, "import sys; print(sys.argv[1]); sys.exit(3)"),
    ]
    done = subprocess.run([*command, "x"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "x\n")


def test_a_connection_that_says_nothing_harms_nobody(python, socket, folder) -> None:
    import socket as sockets

    with sockets.socket(sockets.AF_UNIX) as silent:
        silent.connect(str(socket))
    assert subprocess.run([*python, program(folder, "")]).returncode == 0


def test_nobody_else_may_connect(socket) -> None:
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600


def test_imports_that_start_threads_are_refused(folder) -> None:
    (folder / "threaded.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
    )
    done = subprocess.run(
        [sys.executable, str(warm.SERVER), str(folder / "s"), str(os.getpid()), "threaded"],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "1 threads" in done.stderr


@pytest.mark.ray
def test_processes_of_a_warm_job_have_the_imports(local_cluster: Cluster, tmp_path) -> None:
    client = JobClient(local_cluster)
    wait_until(Path(local_cluster.warm_python[-1]).exists, 60)
    text = (
        "import sys, ray\n"
        "print('driver', 'torch' in sys.modules)\n"
        "ray.init(address='auto')\n"
        "worker = ray.remote(lambda: 'torch' in sys.modules)\n"
        "print('worker', ray.get(worker.remote()))\n"
    )
    (tmp_path / "probe.py").write_text(text, encoding="utf-8")
    files = Bundle(tmp_path, build("{}\n").package)
    job = client.submit("probe", [], files, warm=True)
    log = "\n".join(client.follow(job))
    assert "driver True" in log
    assert "worker True" in log
