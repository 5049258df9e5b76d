"""Events and their figures as people read them."""

import math
from collections.abc import Mapping

from raylora.cli.output import MISSING
from raylora.cluster.events import (
    BatchEvent,
    ComparisonEvent,
    ErrorEvent,
    EvaluationEvent,
    Event,
    NoticeEvent,
    ReportEvent,
    RestartEvent,
    ResultEvent,
    StageEvent,
    StepEvent,
    ValidationEvent,
)
from raylora.config.metric import lower_is_better


def plain(event: Event) -> str:
    """An event as one line for people."""
    match event:
        case StageEvent(stage, detail):
            return f"{stage}: {detail}" if detail else stage
        case StepEvent():
            return f"step {event.step}/{event.total_steps}  {figures(event)}"
        case ValidationEvent(step, loss, metrics, best):
            said = f"validation after step {step}: loss {loss:.4f}{_scores(metrics)}"
            return f"{said}  (best so far)" if best else said
        case NoticeEvent(text):
            return text
        case RestartEvent(attempt, resumed_step):
            return f"workers restarted (restart {attempt}), going on after step {resumed_step}"
        case EvaluationEvent(subject, rows, metrics, dataset):
            where = f" of {dataset}" if dataset else ""
            return f"{subject} on {rows} rows{where}: {_scores(metrics).strip()}"
        case ComparisonEvent():
            return (
                f"{event.subject} against {event.against} on {event.dataset}: {event.metric} "
                f"{event.difference:+.4g} ({event.low:+.4g} to {event.high:+.4g}), {event.verdict}"
            )
        case ReportEvent():
            return f"written to {event.folder}"
        case ResultEvent():
            return f"{event.adapter or 'no adapter registered'}  {event.adapter_dir}"
        case BatchEvent():
            return f"{event.answers} answers and {event.refused} refused rows in {event.output}"
        case ErrorEvent(message, hint):
            return f"error: {message}\nhint: {hint}" if hint else f"error: {message}"


def figures(step: StepEvent) -> str:
    """What a step came to, on one line."""
    used = f"  {step.mfu:.0%} of peak" if step.mfu >= 0 else ""
    return (
        f"loss {step.loss:.4f}  lr {step.learning_rate:.2e}  grad {step.grad_norm:.2f}  "
        f"{step.tokens_per_second:,.0f} tokens/s ({step.supervised_tokens_per_second:,.0f} learnt)"
        f"{used}  {step.memory_bytes / 1e9:.1f} GB  ETA {clock(step.eta_seconds)}"
    )


def memory(step: StepEvent) -> str:
    """What each worker holds; nothing where that is not known."""
    each = ", ".join(f"{used / 1e9:.2f}" for used in step.worker_memory_bytes)
    return f"memory by worker: {each} GB" if each else ""


def scored(metric: str, value: float) -> str:
    """A score as people read it: a share in percent, a loss as it is, NaN as missing."""
    if math.isnan(value):
        return MISSING
    return f"{value:.4g}" if lower_is_better(metric) else f"{value:.1%}"


def clock(seconds: float) -> str:
    """A time as hours, minutes and seconds."""
    if not seconds < float("inf"):
        return "unknown"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _scores(metrics: Mapping[str, float]) -> str:
    return "".join(f"  {name} {scored(name, value)}" for name, value in metrics.items())
