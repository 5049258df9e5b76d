"""An adapter melted into its base: how those are used that cannot share a batch with others."""

from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from raylora.lora import integrity
from raylora.lora.base import unpacked
from raylora.lora.integrity import AdapterFacts


def merge(
    base: PreTrainedModel,
    directory: Path,
    *,
    base_revision: str | None = None,
    manifest_required: bool = True,
) -> tuple[PreTrainedModel, AdapterFacts]:
    """Check an adapter and add it to the base's own weights, in place; give the base back.

    Quantised layers become plain ones of the compute dtype first: stored in few bits again, the
    sum would lose what was learnt. Raises InvalidAdapter, and the base is as it was.
    """
    facts = integrity.verify(
        directory,
        base_config=base.config,
        base_revision=base_revision,
        manifest_required=manifest_required,
        alone=True,
    )
    adapted: Any = PeftModel.from_pretrained(
        unpacked(base), directory, autocast_adapter_dtype=False
    )
    return adapted.merge_and_unload().requires_grad_(False).eval(), facts
