"""A GGUF file turned into the directory that transformers loads in under a second."""

import contextlib
import io
import sys
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedTokenizerFast

from raylora.errors import ExitCode, NotFound, RayloraError
from raylora.lora.quiet import quiet_loading


def convert(gguf: Path, into: Path) -> None:
    """Write the model as bf16 safetensors with config, generation config and tokenizer.

    Takes about 15 s for 135M parameters, which loading the GGUF itself would cost each time.
    Raises NotFound where the file lacks weights of its own architecture or a chat template.
    """
    # The GGUF reader draws a progress bar of its own, which no switch turns off.
    with quiet_loading(), contextlib.redirect_stderr(io.StringIO()):
        # dequantize=True: plain bf16 tensors, and no look-up of GGUF kernels on the network.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
        )
        model, report = loaded
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        _restore_digit_split(tokenizer, gguf)
        tokenizer.model_max_length = model.config.max_position_embeddings
        model.save_pretrained(into)
        tokenizer.save_pretrained(into)
    if report["missing_keys"]:
        raise NotFound(f"{gguf.name} has no weights for {sorted(report['missing_keys'])[0]}")
    if not tokenizer.chat_template:
        raise NotFound(
            f"{gguf.name} carries no chat template",
            hint="use an instruction-tuned model, whose tokenizer has a chat template",
        )


def main(gguf: str, into: str) -> int:
    """`python -m raylora.lora.gguf FILE DIR`; the exit code, with the reason on stderr."""
    try:
        convert(Path(gguf), Path(into))
    except RayloraError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code
    return ExitCode.OK


def _restore_digit_split(tokenizer: PreTrainedTokenizerFast, gguf: Path) -> None:
    """Split digits one by one, as the file's `smollm` pre-tokenizer does.

    transformers 5.23 reads this pre-tokenizer as plain byte-level BPE, under which runs of spaces
    before a digit become other tokens than the model was trained on.
    """
    field = GGUFReader(gguf).get_field("tokenizer.ggml.pre")
    if field is not None and field.contents() == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
