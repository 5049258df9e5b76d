"""The frozen base model and its tokenizer, in bf16, fp16 or fp32, or in 4 or 8 bits."""

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from raylora.config.model_spec import ModelSpec, Quantization
from raylora.lora.devices import Device, DeviceKind
from raylora.lora.int8 import multiply_in_compute_dtype
from raylora.lora.narrow import narrow, widen
from raylora.lora.quiet import quiet_loading
from raylora.lora.sources import LocalModel

LLAMA_LIKE = frozenset({"Llama", "Mistral", "Phi3", "Qwen2", "Qwen3", "SmolLM3"})
"""Families whose layers compute as Llama's do, in transformers' names of their classes."""


def load_base(local: LocalModel, spec: ModelSpec, device: Device) -> PreTrainedModel:
    """Load the base on the device: frozen, in eval mode, in the spec's compute dtype.

    With a quantization every linear layer but the output head is stored in 4 or 8 bits and
    multiplied in the compute dtype; embeddings, norms and head stay in the compute dtype.
    """
    dtype = device.dtype(spec.dtype)
    with quiet_loading():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            local.path,
            dtype=dtype,
            device_map={"": device.torch_device},
            quantization_config=_quantization(spec, dtype),
            trust_remote_code=spec.trust_remote_code,
        )
    _keep_4bit_layout(model)
    if spec.quantization is Quantization.INT8:
        multiply_in_compute_dtype(model)
    model.requires_grad_(False)
    return model.eval()


def load_for_generation(local: LocalModel, spec: ModelSpec, device: Device) -> PreTrainedModel:
    """`load_base` with the same numbers, on a CPU laid out for steps of few rows.

    Quantised layers are unpacked once: a CPU unpacks each anew in every step, and one of 16 rows
    of SmolLM2 takes 1.4 times as long. Unpacked logits are equal to the bit; the memory is bf16's.
    Weights that fp32 has from bf16 are kept in bf16.
    """
    model = load_base(local, spec, device)
    if device.kind is DeviceKind.CPU:
        model = unpacked(model)
        narrow(model)
    return model


def unpacked(model: PreTrainedModel) -> PreTrainedModel:
    """The base with all its layers turned into plain ones of the compute dtype, in place."""
    widen(model)
    if not getattr(model, "is_quantized", False):
        return model
    with quiet_loading():
        return model.dequantize().requires_grad_(False)


def load_tokenizer(local: LocalModel) -> PreTrainedTokenizerBase:
    """Load the tokenizer, with a padding token and padding on the left, as generation wants it."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(local.path)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def compute_dtype(model: PreTrainedModel) -> torch.dtype:
    """Return the dtype in which the linear layers multiply, 4-bit ones included."""
    embeddings: Any = model.get_input_embeddings()
    return embeddings.weight.dtype


def linear_shapes(model: PreTrainedModel) -> dict[str, tuple[int, int]]:
    """(out_features, in_features) of each linear layer by name, without the output head.

    Adapters that are on them already count for nothing.
    """
    head = model.get_output_embeddings()
    return {
        name.removesuffix(".base_layer"): (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head and ".lora_" not in name
    }


def linear_shapes_of(config: PretrainedConfig) -> dict[str, tuple[int, int]]:
    """`linear_shapes` of a base that is not loaded, from its config alone."""
    return linear_shapes(_skeleton(config))


def parameter_shapes_of(config: PretrainedConfig) -> dict[str, tuple[int, ...]]:
    """Shape of each parameter of a base that is not loaded, tied ones under each name."""
    named = _skeleton(config).named_parameters(remove_duplicate=False)
    return {name: tuple(parameter.shape) for name, parameter in named}


def _skeleton(config: PretrainedConfig) -> PreTrainedModel:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def _quantization(spec: ModelSpec, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    match spec.quantization:
        case Quantization.NONE:
            return None
        case Quantization.INT8:
            return BitsAndBytesConfig(load_in_8bit=True)
        case Quantization.NF4 | Quantization.FP4:
            return BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type=spec.quantization.value,
                bnb_4bit_compute_dtype=dtype,  # bitsandbytes' own default is fp32
                bnb_4bit_use_double_quant=spec.double_quant,
            )


def _keep_4bit_layout(model: PreTrainedModel) -> None:
    """Stop bitsandbytes from repacking 4-bit weights at the first forward in eval mode.

    On CPUs with AVX512-BF16 it repacks them for an inference kernel that rounds differently
    (logits of SmolLM2 move by up to 4.9), is 6 times slower for prompts, and has no backward:
    training after one eval forward gets wrong gradients (cosine 0.02), with a warning at most.
    """
    for module in model.modules():
        layer: Any = module
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
