"""Fixtures for every room: a random tiny Llama and its tokenizer, built in memory."""

import gc
import importlib.util
import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from raylora.cluster import head, processes
from raylora.cluster.connect import Cluster, connect
from raylora.cluster.jobs import JobClient
from raylora.tracking.store import ensure_database


def pytest_configure() -> None:
    """One thread for each test process: beside a busy neighbour two are 20 times slower."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_collection_finish() -> None:
    """Spare collectors a million objects that imports made and that stay: 0.6 s a collection."""
    gc.collect()
    gc.freeze()


CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each byte, and ChatML's special tokens: 259 in all."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*specials, *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=512,
        padding_side="left",
    )


@pytest.fixture(scope="session")
def tiny_config() -> LlamaConfig:
    """Two layers, grouped query attention, tied head; multiples of 64, so that nf4 fits."""
    return LlamaConfig(
        vocab_size=259,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )


@pytest.fixture
def tiny_model(tiny_config: LlamaConfig) -> LlamaForCausalLM:
    """A fresh fp32 model, frozen and in eval mode; the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = LlamaForCausalLM(tiny_config)
    return model.requires_grad_(False).eval()


@pytest.fixture(scope="session")
def tiny_base(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_config: LlamaConfig,
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> Path:
    """The tiny model and tokenizer as a directory: what model.source=path takes."""
    directory = tmp_path_factory.mktemp("tiny-base")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        LlamaForCausalLM(tiny_config).save_pretrained(directory)
    tiny_tokenizer.save_pretrained(directory)
    return directory


# --- Training without Ray: tiny runs (jobs/train/tiny.py), and a process group of one ------------


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    program = Path(__file__).parent / "jobs/train/tiny.py"
    spec = importlib.util.spec_from_file_location("tiny", program)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def process_group() -> Iterator[None]:
    """A group of one; DeepSpeed keeps its own handle on it, so one serves all tests."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK="0", LOCAL_RANK="0", WORLD_SIZE="1"
    )
    dist.init_process_group("gloo")
    yield
    dist.destroy_process_group()


# --- Clusters: one local head for the whole suite, and dashboards that are not there -------------

Answer = tuple[int, Any]


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test touches the user's own cluster or is led to another one by the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYLORA_HOME", str(tmp_path_factory.mktemp("home")))
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAYLORA_ADDRESS"):
            patch.delenv(name, raising=False)
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database; tests copy it, since migrating takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    ensure_database(folder / "mlflow.db", folder / "mlartifacts")
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def local_cluster(_own_home: None) -> Iterator[Cluster]:
    """The suite's local head, started by the first test that wants it. Mark such tests `ray`."""
    yield connect(None)
    head.stop()


@pytest.fixture
def second_node(
    local_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Another raylet on this machine: a cluster of two nodes."""
    state = head.running()
    assert state is not None
    folder = Path(tempfile.mkdtemp(dir=state.temp_dir))
    ports = ("node-manager", "object-manager", "dashboard-agent-grpc", "dashboard-agent-listen")
    ports += ("runtime-env-agent", "min-worker", "max-worker")
    node = processes.start_detached(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
            f"--address={state.gcs_address}",
            f"--node-ip-address={state.gcs_address.split(':')[0]}",
            *(f"--{name}-port=0" for name in ports),
            "--metrics-export-port=0",
            "--num-cpus=1",
            "--object-store-memory=100000000",
            f"--temp-dir={folder}",
            "--disable-usage-stats",
        ],
        env=os.environ
        | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": state.token_path,
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            processes.MARKER: state.id,
        },
        cwd=folder,
        log=folder / "log",
    )
    client = JobClient(local_cluster)
    deadline = time.monotonic() + 60
    while len(client.nodes()) < 2:
        assert time.monotonic() < deadline, (folder / "log").read_text("utf-8")
        time.sleep(0.3)
    yield
    processes.end([node], grace_s=15)


@pytest.fixture
def silent_dashboard() -> Iterator[str]:
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def dashboard() -> Iterator[Callable[[Callable[[str, str, str | None], Answer]], str]]:
    """Serve a function (method, path, authorization) -> (status, JSON); gives the URL."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Callable[[str, str, str | None], Answer]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply("GET")

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.reply("POST")

            def reply(self, method: str) -> None:
                status, body = answer(method, self.path, self.headers.get("Authorization"))
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
