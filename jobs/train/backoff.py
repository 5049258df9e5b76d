"""What to do where memory runs out: half the rows in each forward pass, at the same batch."""

import gc

import torch

from raylora.errors import JobFailed

_CPU_TEXTS = ("can't allocate memory", "not enough memory", "Cannot allocate memory")
"""Of RuntimeErrors: torch has no class of its own for a CPU that is out of memory."""
_CUDA_TEXTS = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of a GPU or of the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        part in text for part in (*_CPU_TEXTS, *_CUDA_TEXTS)
    )


def halved(micro_batch_size: int) -> int:
    """The next smaller number of rows in a forward pass. Raises JobFailed below 1."""
    if micro_batch_size == 1:
        raise JobFailed(
            "memory ran out with one row in a forward pass",
            hint="set training.activation_checkpointing=true or model.quantization=nf4, lower "
            "data.max_length or data.pack_length, or give workers more memory",
        )
    return micro_batch_size // 2


def release() -> None:
    """Give back what an interrupted step has left, so that the next attempt finds room."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
