"""One self-contained HTML page: text, tables and plots, with all that they need in it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from raylora.jobs.html_assets import SCRIPT, STYLE

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
    # plotly.js makes the shaders of parallel coordinates with new Function.
    "script-src 'unsafe-inline' 'unsafe-eval'"
)
"""Lets a browser refuse whatever would be fetched."""


@dataclass(frozen=True)
class Chart:
    """A plot and what to see in it."""

    id: str
    title: str
    caption: str
    figure: "Figure"


def document(title: str, subtitle: str, parts: Iterable[str], charts: Sequence[Chart]) -> str:
    """The whole page, about 5 MB, nearly all of it plotly.js: parts of HTML, then the plots."""
    from plotly.offline import get_plotlyjs
    from plotly.utils import PlotlyJSONEncoder

    figures = json.dumps(
        {chart.id: chart.figure.to_plotly_json() for chart in charts}, cls=PlotlyJSONEncoder
    )
    title = escape(title)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title><style>{STYLE}</style></head><body>",
            f"<header><h1>{title}</h1><p>{escape(subtitle)}</p></header><main>",
            *parts,
            *map(_plot, charts),
            "</main>",
            f'<script type="application/json" id="figures">{_in_script(figures)}</script>',
            f"<script>{get_plotlyjs()}</script>",
            f"<script>{SCRIPT}</script>",
            "</body></html>",
        ]
    )


def facts(known: Mapping[str, str]) -> str:
    """A line of names and values."""
    parts = (f"<div><dt>{key}</dt><dd>{escape(value)}</dd></div>" for key, value in known.items())
    return f'<dl class="facts">{"".join(parts)}</dl>'


def table(
    title: str,
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    id: str,
    style: str = "",
) -> str:
    """A section with a table that sorts by the heading that is clicked.

    style: first-is-best, or text for long cells.
    """
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f"<section><h2>{escape(title)}</h2><p>{escape(caption)}</p>"
        f'<div class="wide"><table id="{id}" class="{style}">'
        f"<thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def note(text: str) -> str:
    """A remark in small print."""
    return f'<p class="note">{escape(text)}</p>'


def figure(value: Any) -> str:
    """A value as a cell shows it; None is nothing."""
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def laid_out(drawn: "Figure", x_title: str, y_title: str) -> "Figure":
    """A figure in the look of the page."""
    drawn.update_layout(
        template="plotly_white",
        xaxis_title=x_title,
        yaxis_title=y_title,
        margin={"l": 70, "r": 30, "t": 20, "b": 60},
        hoverlabel={"align": "left"},
    )
    return drawn


def _cell(value: Any) -> str:
    return f"<td>{escape(figure(value))}</td>"


def _plot(chart: Chart) -> str:
    return (
        f"<section><h2>{escape(chart.title)}</h2><p>{escape(chart.caption)}</p>"
        f'<div class="plot" data-figure="{chart.id}"></div></section>'
    )


def _in_script(data: str) -> str:
    """JSON that cannot end the script element it stands in."""
    return data.replace("</", "<\\/")
