import os
import sys
from pathlib import Path

import psutil
import pytest
from benchmarks.bars.spoken import child

ECHO = """
import json, sys
print("some noise {", flush=True)
for line in sys.stdin:
    print("prefix " + json.dumps({"said": line.strip()}), flush=True)
    if line.strip() == "end":
        sys.exit("the reason")
"""


def test_a_child_is_told_and_heard(tmp_path: Path):
    with child([sys.executable, "-c", ECHO], tmp_path, dict(os.environ), 30) as running:
        heard = running.heard()
        running.tell("go")
        seconds, line = next(heard)
        assert line == {"said": "go"}
        assert 0 < seconds < 30
        running.tell("end")
        assert [line for _, line in heard] == [{"said": "end"}]
        running.process.wait()
        with pytest.raises(RuntimeError, match=r"(?s)exit 1\):.*the reason"):
            raise running.fault("it crashed")


def test_a_child_does_not_outlive_its_block(tmp_path: Path):
    with child([sys.executable, "-c", ECHO], tmp_path, dict(os.environ), 30) as running:
        pass
    assert running.process.poll() is not None


LEAVES = """
import subprocess, sys
left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print('{"pid": %d}' % left.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("whole_group", [True, False])
def test_what_a_child_leaves_behind_goes_with_its_group(tmp_path: Path, whole_group: bool):
    command = [sys.executable, "-c", LEAVES]
    environment = dict(os.environ)
    with child(command, tmp_path, environment, 30, whole_group=whole_group) as running:
        _, line = next(running.heard())
        left = psutil.Process(line["pid"])
    if whole_group:
        left.wait(10)
    else:
        assert left.is_running()
        left.kill()
