"""The interactive plots of a report, as plotly figures; what there is no data for is left out."""

from collections.abc import Iterator
from html import escape

from raylora.config.sweep_spec import Mode
from raylora.jobs.html_page import Chart, laid_out
from raylora.sweeps.report.dimensions import Dimension
from raylora.sweeps.report.findings import Findings, Tradeoff
from raylora.sweeps.report.scales import coordinates, flat_axis, parallel_axis

PLANE = ("training.learning_rate", "lora.r")
"""The two keys that are drawn against each other where both were searched."""
COST_TITLES = {"adapter_bytes": "size of the adapter (bytes)", "duration_s": "time (seconds)"}


def charts(found: Findings) -> list[Chart]:
    """All plots that the findings have data for, in the order of the page."""
    return [
        *_learning_curves(found),
        *_importance(found),
        *_plane(found),
        *_parallel(found),
        *(chart for tradeoff in found.tradeoffs for chart in _tradeoff(found, tradeoff)),
    ]


def _learning_curves(found: Findings) -> Iterator[Chart]:
    import plotly.graph_objects as go

    drawn = [trial for trial in found.trials if found.curves[trial.name]]
    if not drawn:
        return
    figure = go.Figure()
    for trial, colour in zip(drawn, _colours(len(drawn)), strict=True):
        points = found.curves[trial.name]
        figure.add_scatter(
            x=[point.step for point in points],
            y=[point.value for point in points],
            name=trial.name,
            mode="lines+markers" if len(points) < 30 else "lines",
            line={"color": colour, "width": 3 if trial is found.best else 1.5},
            hovertemplate=f"{_hover(found, trial.name)}<br>step %{{x}}: %{{y:.4g}}<extra></extra>",
        )
    yield Chart(
        "curves",
        "Learning curves",
        f"{found.sweep.metric} by optimizer step; the best trial is the thick line, and the "
        "legend is in the order of rank. Double-click a name to see it alone.",
        laid_out(figure, "optimizer step", found.sweep.metric),
    )


def _importance(found: Findings) -> Iterator[Chart]:
    import plotly.graph_objects as go

    shares = found.importance.shares
    if not shares:
        return
    bars = {**shares, "two keys or more together": found.importance.interplay}
    figure = go.Figure(
        go.Bar(
            x=list(bars.values()),
            y=list(bars),
            orientation="h",
            text=[f"{share:.0%}" for share in bars.values()],
            marker={"color": ["#3b6fb6"] * len(shares) + ["#b9c3d0"]},
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", automargin=True)
    figure.update_xaxes(range=[0, 1], tickformat=".0%")
    yield Chart(
        "importance",
        "Importance of each key",
        f"Share of the variation of {found.sweep.metric} between trials that a key explains by "
        f"itself (fANOVA, {len(found.compared.values)} trials at step {found.compared.step}). "
        "With few trials this is a hint, not a measurement.",
        laid_out(figure, "share of the variation", ""),
    )


def _plane(found: Findings) -> Iterator[Chart]:
    import plotly.graph_objects as go

    values = found.compared.values
    if not found.axes or not values:
        return
    x_axis, y_axis = _two_axes(found)
    names = list(values)
    results = [values[name] for name in names]
    figure = go.Figure(
        go.Scatter(
            x=coordinates(x_axis, names),
            y=coordinates(y_axis, names) if y_axis else results,
            text=names,
            mode="markers+text",
            textposition="top center",
            marker={
                "size": 16,
                "color": results,
                "colorscale": "Viridis",
                "reversescale": found.sweep.mode is Mode.MIN,
                "colorbar": {"title": {"text": found.sweep.metric}},
                "line": {"color": "white", "width": 1},
            },
            hovertemplate=[f"{_hover(found, name)}<extra></extra>" for name in names],
        )
    )
    laid_out(figure, x_axis.label, y_axis.label if y_axis else found.sweep.metric)
    figure.update_xaxes(**flat_axis(x_axis))
    if y_axis:
        figure.update_yaxes(**flat_axis(y_axis))
    title = f"{y_axis.keys[0] if y_axis else found.sweep.metric} against {x_axis.keys[0]}"
    said = f"Each point is a trial, its colour the {found.sweep.metric} at step"
    yield Chart("plane", title, f"{said} {found.compared.step}; brighter is better.", figure)


def _parallel(found: Findings) -> Iterator[Chart]:
    import plotly.graph_objects as go

    values = found.compared.values
    if len(found.axes) < 2 or not values:
        return
    names, results = list(values), list(values.values())
    figure = go.Figure(
        go.Parcoords(
            dimensions=[
                *(parallel_axis(axis, names) for axis in found.axes),
                {"label": found.sweep.metric, "values": results},
            ],
            line={
                "color": results,
                "colorscale": "Viridis",
                "reversescale": found.sweep.mode is Mode.MIN,
                "showscale": True,
            },
            labelangle=-15,
        )
    )
    figure.update_layout(template="plotly_white", margin={"l": 90, "r": 60, "t": 90, "b": 40})
    yield Chart(
        "parallel",
        "Parallel coordinates",
        f"A line is a trial at step {found.compared.step}. Drag along an axis to see only the "
        "trials within; drag an axis by its name to move it.",
        figure,
    )


def _tradeoff(found: Findings, tradeoff: Tradeoff) -> Iterator[Chart]:
    import plotly.graph_objects as go

    points = tradeoff.points
    if not points:
        return
    beaten = [name for name in points if name not in tradeoff.front]
    figure = go.Figure()
    for label, names, style in (
        ("on the front", tradeoff.front, {"mode": "lines+markers+text", "line": {"shape": "hv"}}),
        ("beaten by another", beaten, {"mode": "markers+text"}),
    ):
        on_front = names is tradeoff.front
        figure.add_scatter(
            x=[points[name][0] for name in names],
            y=[points[name][1] for name in names],
            text=names,
            textposition="top center",
            name=label,
            marker={"size": 12, "color": "#3b6fb6" if on_front else "#b9c3d0"},
            hovertemplate=[f"{_hover(found, name)}<extra></extra>" for name in names],
            **style,
        )
    title = COST_TITLES[tradeoff.cost]
    yield Chart(
        f"front-{tradeoff.cost}",
        f"{found.sweep.metric} against {title}",
        "Pareto front of the trials that are over: no other trial is both better and cheaper."
        + (
            " Trials that train fused share their time, so it says how long each was there."
            if tradeoff.cost == "duration_s"
            else ""
        ),
        laid_out(figure, title, found.sweep.metric),
    )


def _two_axes(found: Findings) -> tuple[Dimension, Dimension | None]:
    """Learning rate and rank; else the two that matter most, as far as that is known."""
    axes = {axis.keys[0]: axis for axis in found.axes}
    if all(key in axes for key in PLANE):
        return axes[PLANE[0]], axes[PLANE[1]]
    shares = found.importance.shares
    by_share = sorted(found.axes, key=lambda axis: -shares.get(axis.label, 0.0))
    return by_share[0], by_share[1] if len(by_share) > 1 else None


def _colours(count: int) -> list[str]:
    """From the best trial's to the last one's: dark to pale."""
    from plotly.colors import sample_colorscale

    places = [0.9 * place / max(1, count - 1) for place in range(count)]
    return [str(colour) for colour in sample_colorscale("Viridis", places)]


def _hover(found: Findings, name: str) -> str:
    settings = (f"{axis.label}: {escape(str(axis.values[name]))}" for axis in found.axes)
    return "<br>".join([f"<b>{name}</b>", *settings])
