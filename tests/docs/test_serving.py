"""The page "Serving", followed from its first command to its last."""

import json
import re
import shlex
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import openai
import pytest
from click.testing import CliRunner
from tests.docs.fences import DOCS
from tests.registered import register

from raylora.cli.main import cli
from raylora.cluster import applications
from raylora.cluster.connect import Cluster
from raylora.config.model_spec import DType, ModelSource, ModelSpec
from raylora.engine.request import Completion, Event, FinishReason
from raylora.engine.stats import EngineStats
from raylora.serve.edge.access_log import line
from raylora.serve.edge.keys import ANYONE
from raylora.serve.edge.levels import of_engine
from raylora.serve.edge.metrics import Metrics
from raylora.serve.edge.request_record import RequestRecord
from raylora.serve.ingress.refusals import Refusals

PAGE = (DOCS / "serving.md").read_text(encoding="utf-8")
BASE = "smollm2-135m-instruct"


def commands() -> list[list[str]]:
    return [shlex.split(words) for words in re.findall(r"(?m)^    raylora (.+)$", PAGE)]


def answered() -> RequestRecord:
    record = RequestRecord("id", "POST", "/v1/completions", key=ANYONE, model="a")
    record.answered_by, record.streamed, record.sent_status = "a@1", True, 200
    record.saw(0, Event("x", "a"))
    record.saw(0, Event("x", "b", Completion("x", "ab", (1, 2), FinishReason.STOP, 3, begun=1.0)))
    record.end()
    return record


def test_the_log_line_has_the_fields_that_the_page_shows() -> None:
    (shown,) = (json.loads(text) for text in re.findall(r"```json\n(\{\"time\".*)\n", PAGE))
    assert list(shown) == list(json.loads(line(answered())))


def test_the_series_are_those_that_there_are() -> None:
    metrics = Metrics()
    metrics.tell(answered())
    metrics.loaded("a@1", 1.0)
    metrics.evicted("a@1")
    stats = EngineStats(*[0] * 10, kv_budget=1)
    text = metrics.text(of_engine(stats)) + Refusals().text()
    named = set(re.findall(r"`(raylora_[a-z_]+)`", PAGE))
    levels = {"raylora_requests_running", "raylora_requests_waiting", "raylora_adapters"}
    assert len(named) > 8
    assert {name for name in named if f"# TYPE {name} " not in text} == levels


@pytest.fixture
def place(
    tiny_base: Path, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    """A folder with home-requests@1 in its registry; settings that put the tiny base below it."""
    monkeypatch.setenv("RAYLORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("outputs").mkdir()
    shutil.copy(empty_store, "outputs/mlflow.db")
    model = ModelSpec(
        source=ModelSource.PATH, id=str(tiny_base), name=BASE, dtype=DType.FP32, max_length=512
    )
    register(tmp_path / "outputs", model, tmp_path, "home-requests", "Answer in JSON.")
    Path("rows.jsonl").write_text('{"prompt": "Dim the light"}\n{\n', encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield {
        "port": str(port),
        "model.id": str(tiny_base),
        "model.source": "path",
        "model.dtype": "fp32",
        "model.max_length": "512",
    }


@pytest.fixture
def follow(
    local_cluster: Cluster, place: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[list[str]], str]]:
    """Run a command of the page, with the settings where it takes some; its stdout."""
    settings = [f"{key}={value}" for key, value in place.items()]

    def run(words: list[str]) -> str:
        takes_settings = words[:2] == ["serve", "up"] or words[0] == "batch"
        result = CliRunner().invoke(cli, words + (settings if takes_settings else []))
        assert result.exit_code == 0, f"{words}\n{result.output}"
        if words[:4] == ["serve", "keys", "add", "ops"]:
            monkeypatch.setenv("RAYLORA_API_KEY", result.stdout.strip())
        return result.stdout

    yield run
    applications.shut_down(local_cluster)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_can_be_followed(
    follow: Callable[[list[str]], str], place: dict[str, str]
) -> None:
    root = f"http://127.0.0.1:{place['port']}"
    told: dict[str, str] = {}
    for words in commands():
        if words == ["cluster", "down"]:
            continue  # the cluster is that of all tests
        told[" ".join(words[:3])] = follow(words)
        if words == ["serve", "up"]:
            with urlopen(f"{root}/") as page:
                assert b"Who answers" in page.read()
            assert BASE in python_of_the_page(root)
    assert "home-requests@1" in told["serve status"]
    assert "tokens/s" in told["chat -m " + BASE]
    assert told["serve keys list"].count("home-*") == 1
    lines = [json.loads(text) for text in Path("answers.jsonl").read_text("utf-8").splitlines()]
    assert sorted((each["row"], "answer" in each) for each in lines) == [
        *[(1, True)] * 2,
        *[(2, False)] * 2,
    ]
    assert "open, 4/s" in told["bench serve -m"]


def python_of_the_page(root: str) -> str:
    """Names of the models that the client of the example finds."""
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert "openai" in program
    example = program.replace("http://127.0.0.1:8000", root)
    space: dict[str, object] = {}
    exec(compile(example, "serving.md", "exec"), space)
    client = space["client"]
    assert isinstance(client, openai.OpenAI)
    with client:
        return " ".join(model.id for model in client.models.list())
