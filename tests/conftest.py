"""Fixtures for every room: a random tiny Llama and its tokenizer, built in memory."""

import gc
import importlib.util
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import distributed as dist
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from raylora.tracking.store import ensure_database

pytest_plugins = ["tests.clusters"]


def pytest_configure() -> None:
    """One thread for each test process: beside a busy neighbour two are 20 times slower.

    Ray's workers get as much of a core as a test that computes beside them, not a thirtieth.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("RAY_worker_niceness", "0")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that start clusters first: the longest, and two that wait do well side by side."""
    items.sort(
        key=lambda item: not {"ray", "e2e"}.intersection(m.name for m in item.iter_markers())
    )


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


# --- Homes and stores ----------------------------------------------------------------------------


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
