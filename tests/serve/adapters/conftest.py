"""A replica that can be started again and again, with its state on disk."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.serve.adapters.replica import POLL_S

from raylora.serve.adapters.catalogue import Catalogue
from raylora.serve.adapters.remembered import MemoryFile
from raylora.serve.adapters.residency import Residency


@pytest.fixture
def state_file(tmp_path) -> Path:
    return tmp_path / "state" / "endpoint.json"


@pytest.fixture
def live(registry, slots, folders, state_file) -> Callable[[], Residency]:
    """A replica's residency; each call is the replica started anew."""

    def start() -> Residency:
        catalogue = Catalogue(registry.list, fresh_s=POLL_S)
        memory = MemoryFile(state_file)
        return Residency("tiny", catalogue, registry, slots, folders=folders, memory=memory)

    return start
