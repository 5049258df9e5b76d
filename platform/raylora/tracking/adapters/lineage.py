"""Where a version comes from: what its own files say, and the metrics of its run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raylora.tracking.adapters.registry import Registry
from raylora.tracking.adapters.version import Version
from raylora.tracking.adapters.version_files import ARTIFACT

MANIFEST = "raylora.json"
"""In the adapter's folder, under whose key "lineage" all this stands."""
EXPECTED = (
    "base",
    "chat_template_sha256",
    "data",
    "spec",
    "packages",
    "hardware",
)
"""What an adapter trained here says; None for what an imported one leaves open."""


@dataclass(frozen=True)
class Lineage:
    """Of one version."""

    version: str
    run_id: str
    mlflow_run_id: str
    metrics: Mapping[str, float]
    facts: Mapping[str, Any]
    """By key, EXPECTED first."""

    @property
    def missing(self) -> list[str]:
        """What is not known of it."""
        return [key for key, value in self.facts.items() if value is None]


def lineage_of(registry: Registry, version: Version) -> Lineage:
    """Read it out of the store. Raises Unreachable, NotAuthorised."""
    text = registry.read(version, f"{ARTIFACT}/{MANIFEST}")
    written = {} if text is None else json.loads(text).get("lineage", {})
    return Lineage(
        version=str(version),
        run_id=version.run_id,
        mlflow_run_id=version.mlflow_run_id,
        metrics=registry.metrics(version),
        facts=dict.fromkeys(EXPECTED) | written,
    )
