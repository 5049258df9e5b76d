"""Who is asked: the base, registered versions, or adapters in folders."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from raylora.config.evaluate_spec import BASE
from raylora.lora import manifest
from raylora.lora.adapter_config import chat_template


@dataclass(frozen=True)
class Subject:
    """A base or an adapter, by the name that results call it."""

    label: str
    """base; name@7, whatever reference meant it; a folder as it was written."""
    asked_as: str
    """What the spec says, such as name@champion."""
    directory: Path | None = None
    """The adapter's files; None for the base."""
    is_registered: bool = False
    """A folder's adapter may be another tool's, without a manifest."""
    run_id: str | None = None
    """Of the training that a version came from."""
    digest: str | None = None
    """sha256 over the version's files."""

    @cached_property
    def chat_template(self) -> str | None:
        """The one it was trained with, where that is not the tokenizer's."""
        return None if self.directory is None else chat_template(self.directory)

    @cached_property
    def quantization(self) -> str | None:
        """What its base was stored in when it was trained; None where its files do not say."""
        if self.directory is None or not (self.directory / manifest.NAME).is_file():
            return None
        kept = manifest.read(self.directory).lineage.get("quantization")
        return kept if isinstance(kept, str) else None


THE_BASE = Subject(BASE, BASE)
