import pytest

from raylora.config.train_spec import TrackingSpec
from raylora.tracking.adapters.promotion import promote
from raylora.tracking.adapters.registry import Registry
from raylora.tracking.location import tracking_uri
from raylora.tracking.runs import RunStatus, open_run


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An adapter with two versions, the first of them champion."""
    folder = tmp_path_factory.mktemp("adapters")
    uri = tracking_uri(TrackingSpec(), str(folder))
    registry = Registry(uri)
    for number in (1, 2):
        run = open_run(uri, "home", f"run-{number}", "home", params={}, tags={})
        files = tmp_path_factory.mktemp("files")
        (files / "adapter_model.safetensors").write_bytes(bytes(number))
        version = registry.register("home", run, files, tags={"raylora.rank": "16"})
        promote(registry, str(version), only_if_unset=True)
        run.finish(RunStatus.FINISHED)
    return str(folder)
