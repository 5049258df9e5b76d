"""Makes an adapter that has passed its checks a version of its name."""

import raylora
from raylora.cluster.events import NoticeEvent, ResultEvent, StageEvent, emit
from raylora.jobs.assignment import (
    EVALUATION,
    HELD_OUT,
    Assessment,
    Assignment,
    spec_sha256,
)
from raylora.tracking.adapters.promotion import GATE_TAG
from raylora.tracking.adapters.version import QUANTIZATION_TAG
from raylora.tracking.spooling.tracked import TrackedRun


def register(
    assignment: Assignment,
    run: TrackedRun,
    assessment: Assessment,
    alias: str | None = None,
    parent_tag: str = "",
) -> ResultEvent:
    """Register the adapter, once its run is stored; the first version becomes the champion.

    alias: moved to it, too. parent_tag: of the run above, names the version. Where the tracking
    server stays away, the adapter is on disk and is registered by `raylora runs sync`.
    """
    emit(StageEvent("register", assignment.spec.adapter_name))
    places = assignment.places
    metrics = _held_out(assessment)
    run.log_metrics(metrics)
    run.set_tags({"raylora.base_revision": assessment.base_revision})
    run.log_artifacts(places.metadata, "metadata")
    if metrics:
        run.log_artifacts(places.artifacts / EVALUATION, EVALUATION)
    name = assignment.spec.adapter_name
    registered = run.register(
        name,
        places.adapter,
        _lineage(assignment, assessment) | {k: f"{v:.6g}" for k, v in metrics.items()},
        alias,
        assignment.spec.tracking.settle_seconds,
        parent_tag=parent_tag,
    )
    for notice in registered.notices if registered else ():
        emit(NoticeEvent(notice))
    if registered is None:
        again = f"raylora runs sync {assignment.run_id}"
        emit(NoticeEvent(f"the tracking server is away: `{again}` registers {name} later"))
    return ResultEvent(
        run_id=assignment.run_id,
        mlflow_run_id=run.mlflow_run_id,
        adapter=registered.adapter if registered else None,
        aliases=list(registered.aliases) if registered else [],
        adapter_dir=str(places.adapter),
    )


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
        QUANTIZATION_TAG: spec.model.quantization.value,
        "raylora.data": spec.data.train_label,
        "raylora.data_sha256": assessment.data_sha256,
        "raylora.spec_sha256": spec_sha256(assignment.spec),
        "raylora.version": raylora.__version__,
        "raylora.adapter_sha256": assessment.adapter_sha256,
        "raylora.rank": str(assessment.r),
        GATE_TAG: spec.gate.model_dump_json(),
    }
