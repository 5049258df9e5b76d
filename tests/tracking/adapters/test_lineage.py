import json

from raylora.lora import manifest
from raylora.tracking.adapters import lineage
from raylora.tracking.adapters.lineage import lineage_of
from raylora.tracking.adapters.registry import Registry


def test_a_lineage_is_what_the_files_say_and_what_the_run_measured(
    uri: str, start, make_adapter
) -> None:
    assert lineage.MANIFEST == manifest.NAME
    files = make_adapter()
    said = {"base": {"id": "tiny", "revision": "rev-1"}, "data": {"sha256": "ab"}, "steps": 3}
    (files / lineage.MANIFEST).write_text(json.dumps({"lineage": said}))
    run = start()
    run.log_metrics({"heldout_exact_match": 0.0, "final_loss": 0.25})
    run.flush()
    registry = Registry(uri)
    version = registry.register("home", run, files, tags={})
    found = lineage_of(registry, version)
    assert found.run_id == run.run_id
    assert found.metrics == {"heldout_exact_match": 0.0, "final_loss": 0.25}
    assert found.facts["base"] == said["base"] and found.facts["steps"] == 3
    assert found.missing == ["chat_template_sha256", "spec", "packages", "hardware"]
