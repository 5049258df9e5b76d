"""A base with an adapter melted in, on disk as any model, and proven to be the two together."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from raylora.config.model_spec import ModelSpec
from raylora.errors import InvalidAdapter
from raylora.lora import atomic, integrity, manifest
from raylora.lora.adapter_config import CHAT_TEMPLATE
from raylora.lora.base import compute_dtype, load_base, load_tokenizer, unpacked
from raylora.lora.devices import Device
from raylora.lora.quiet import quiet_loading
from raylora.lora.sources import LocalModel

ROUNDINGS = 4
"""Times the dtype's rounding step (of fp32 at least 1e-5), relative to the logits: how far the
merged model's may lie from base and adapter on average. A sum is rounded where it is stored."""
ROWS, LENGTH = 4, 32
"""Of the random tokens that both are given."""


@dataclass(frozen=True)
class Merged:
    """A merged model, and how near it is to its base with the adapter beside it."""

    directory: str
    dtype: str
    bytes: int
    mean_difference: float
    """Of logits."""
    allowed: float
    effect: float
    """Mean difference that the adapter makes to the base."""


def write_merged(
    local: LocalModel, spec: ModelSpec, adapter: Path, into: Path, device: Device, version: str
) -> Merged:
    """Write base and adapter as one model to `into`, complete or not at all.

    Read again from disk it must give the logits of the two. Quantised layers become plain ones of
    the compute dtype. Raises InvalidAdapter, FileExistsError.
    """
    base = load_base(local, spec, device)
    facts = integrity.verify(
        adapter,
        base_config=base.config,
        base_revision=local.revision,
        manifest_required=False,
        alone=True,
    )
    base = unpacked(base)
    ids = _tokens(base)
    without = _logits(base, ids)
    adapted: Any = PeftModel.from_pretrained(base, adapter, autocast_adapter_dtype=False)
    wanted = _logits(adapted.eval(), ids)
    whole: PreTrainedModel = adapted.merge_and_unload()
    with atomic.directory(into) as staged:
        whole.save_pretrained(staged)
        tokenizer = load_tokenizer(local)
        if (adapter / CHAT_TEMPLATE).is_file():
            tokenizer.chat_template = (adapter / CHAT_TEMPLATE).read_text("utf-8")
        tokenizer.save_pretrained(staged)
        found = Merged(
            directory=str(into),
            dtype=str(compute_dtype(whole)).removeprefix("torch."),
            bytes=sum(path.stat().st_size for path in staged.glob("*.safetensors")),
            mean_difference=_distance(_logits(_read(staged, whole, device), ids), wanted),
            allowed=_allowed(wanted, compute_dtype(whole)),
            effect=_distance(without, wanted),
        )
        if not found.mean_difference <= found.allowed:
            raise InvalidAdapter(
                f"merged, {version} gives other logits than base and adapter: they differ by "
                f"{found.mean_difference:.4g} on average, {found.allowed:.4g} is allowed (the "
                f"adapter's effect is {found.effect:.4g})",
                hint="merge in a finer dtype: model.dtype=fp32",
            )
        manifest.write(
            staged,
            {
                "base": {"id": local.id, "revision": local.revision, "name": local.name},
                "adapter": {"version": version, "sha256": facts.sha256},
                "merge": {
                    key: value for key, value in asdict(found).items() if key != "directory"
                },
            },
        )
    return found


def _tokens(model: PreTrainedModel) -> Tensor:
    embeddings: Any = model.get_input_embeddings()
    draw = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, len(embeddings.weight), (ROWS, LENGTH), generator=draw)
    return drawn.to(model.device)


def _logits(model: Any, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits.float().cpu()


def _read(directory: Path, like: PreTrainedModel, device: Device) -> PreTrainedModel:
    with quiet_loading():
        return AutoModelForCausalLM.from_pretrained(
            directory, dtype=compute_dtype(like), device_map={"": device.torch_device}
        ).eval()


def _allowed(logits: Tensor, dtype: torch.dtype) -> float:
    step = max(torch.finfo(dtype).eps, 1e-5)
    return ROUNDINGS * step * float(logits.abs().mean())


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().mean())
