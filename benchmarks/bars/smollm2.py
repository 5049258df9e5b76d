"""The base of all training bars, in the user's model cache."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylora.config.model_spec import ModelSpec
from raylora.config.places import cache
from raylora.lora.base import load_tokenizer
from raylora.lora.sources import LocalModel, fetch


@dataclass(frozen=True)
class Base:
    """SmolLM2 on disk, and its tokenizer."""

    local: LocalModel
    tokenizer: Any

    @property
    def path(self) -> Path:
        """What `from_pretrained` takes."""
        return self.local.path


def smollm2() -> Base:
    """Fetch and convert it where the cache has none: that is no part of any figure."""
    local = fetch(ModelSpec(), cache())
    return Base(local, load_tokenizer(local))
