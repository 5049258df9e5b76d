"""Makes an adapter that has passed its checks a version of its name."""

import raylora
from raylora.cluster.events import NoticeEvent, ResultEvent, StageEvent, emit
from raylora.errors import PromotionConflict, PromotionRefused
from raylora.jobs.assignment import (
    EVALUATION,
    HELD_OUT,
    Assessment,
    Assignment,
    spec_sha256,
)
from raylora.tracking.promotion import GATE_TAG, promote
from raylora.tracking.registry import CHAMPION, Registry
from raylora.tracking.runs import Run


def register(assignment: Assignment, run: Run, assessment: Assessment) -> ResultEvent:
    """Register the adapter; the first version of a name becomes its champion."""
    emit(StageEvent("register", assignment.spec.adapter_name))
    places = assignment.places
    metrics = _held_out(assessment)
    run.log_metrics(metrics)
    run.set_tags({"raylora.base_revision": assessment.base_revision})
    run.log_artifacts(places.metadata, "metadata")
    if metrics:
        run.log_artifacts(places.artifacts / EVALUATION, EVALUATION)
    registry = Registry(assignment.tracking_uri)
    adapter = registry.register(
        assignment.spec.adapter_name,
        run,
        places.adapter,
        tags=_lineage(assignment, assessment) | {k: f"{v:.6g}" for k, v in metrics.items()},
    )
    run.flush()
    _promote(registry, str(adapter))
    aliases = registry.aliases(adapter.name)
    return ResultEvent(
        run_id=assignment.run_id,
        mlflow_run_id=assignment.mlflow_run_id,
        adapter=str(adapter),
        aliases=[alias for alias, number in aliases.items() if number == adapter.version],
        adapter_dir=str(places.adapter),
    )


def _promote(registry: Registry, adapter: str) -> None:
    """A version that its gate holds back is registered all the same."""
    try:
        promote(registry, adapter, CHAMPION, only_if_unset=True)
    except (PromotionRefused, PromotionConflict) as error:
        emit(NoticeEvent(error.message))


def _held_out(assessment: Assessment) -> dict[str, float]:
    """heldout_exact_match of the adapter, heldout_base_exact_match of its base, and so on."""
    return {
        HELD_OUT[subject] + metric: value
        for subject, metrics in assessment.scores.items()
        for metric, value in metrics.items()
    }


def _lineage(assignment: Assignment, assessment: Assessment) -> dict[str, str]:
    spec = assignment.spec
    return {
        "raylora.base": spec.model.id,
        "raylora.base_name": spec.model.name,
        "raylora.base_revision": assessment.base_revision,
        "raylora.quantization": spec.model.quantization.value,
        "raylora.data": spec.data.train_label,
        "raylora.data_sha256": assessment.data_sha256,
        "raylora.spec_sha256": spec_sha256(assignment.spec),
        "raylora.version": raylora.__version__,
        "raylora.adapter_sha256": assessment.adapter_sha256,
        "raylora.rank": str(assessment.r),
        GATE_TAG: spec.gate.model_dump_json(),
    }
