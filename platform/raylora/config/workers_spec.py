"""Ray Train workers, and how training state is spread over them."""

from enum import StrEnum

from pydantic import Field, model_validator

from raylora.config.spec import Spec


class Backend(StrEnum):
    """What shards and reduces."""

    AUTO = "auto"
    """DeepSpeed where zero_stage or offload gives it something to do, else torch."""
    DEEPSPEED = "deepspeed"
    TORCH = "torch"
    """Each worker holds everything; gradients are summed by torch.distributed."""


class WorkersSpec(Spec):
    """How many workers, what each takes, who holds which state."""

    num_workers: int | tuple[int, int] = 2
    """A number, or [least, most]: as many as the cluster has room for, at the same batch."""
    cpus_per_worker: float = Field(default=1, gt=0)
    gpus_per_worker: float = Field(default=0, ge=0)
    backend: Backend = Backend.AUTO
    zero_stage: int = Field(default=0, ge=0, le=3)
    """DeepSpeed ZeRO stage: 1 shards optimizer state, 2 gradients too, 3 parameters too.

    An adapter has little of it: 59 MB for SmolLM2 at rank 16, where sharding costs a CPU 6 %.
    """
    offload: bool = False
    """Keep optimizer state, and at stage 3 parameters, in host memory."""
    max_failures: int = Field(default=3, ge=0)
    """Worker failures survived before the job fails."""
    cpu_comm_op: bool = False
    """DeepSpeed's shared-memory all-reduce for CPUs. Needs a C++ compiler; off means gloo."""

    @property
    def least(self) -> int:
        """The fewest workers that may train."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @property
    def most(self) -> int:
        """The most workers that may train."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]

    @property
    def uses_deepspeed(self) -> bool:
        """What `backend` comes to."""
        if self.backend is Backend.AUTO:
            return self.offload or self.zero_stage == 3 or (self.most > 1 and self.zero_stage > 0)
        return self.backend is Backend.DEEPSPEED

    @property
    def splits_weights(self) -> bool:
        """Whether each worker holds a part of every weight only (ZeRO 3)."""
        return self.uses_deepspeed and self.zero_stage == 3

    @model_validator(mode="after")
    def _at_least_one(self) -> "WorkersSpec":
        if self.least < 1 or self.most < self.least:
            raise ValueError(
                f"num_workers={self.num_workers} is no number of workers; write a number of at "
                "least 1, or [least, most]"
            )
        return self
