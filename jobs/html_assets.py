"""Style and script of a page."""

STYLE = """
:root { --ink: #1d2733; --soft: #5b6875; --line: #dfe5ec; --fill: #f6f8fa; --mark: #3b6fb6; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: white; font: 15px/1.5 system-ui, sans-serif; }
header, main { max-width: 1080px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 32px; }
h1 { margin: 0; font-size: 26px; }
h2 { margin: 0 0 4px; font-size: 18px; }
header p, section p, .note { margin: 0 0 12px; color: var(--soft); }
section { margin: 36px 0; }
.facts { display: flex; flex-wrap: wrap; gap: 12px 32px; margin: 20px 0; padding: 14px 0;
  border: solid var(--line); border-width: 1px 0; }
.facts dt { color: var(--soft); font-size: 12px; }
.facts dd { margin: 0; font-weight: 600; }
.best { padding: 16px 20px; background: var(--fill); border-left: 4px solid var(--mark); }
.best p { color: var(--ink); margin-bottom: 6px; }
pre { margin: 0; padding: 10px 12px; overflow-x: auto; background: white;
  border: 1px solid var(--line); font: 13px/1.5 ui-monospace, monospace; user-select: all; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 12px 5px 0; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { cursor: pointer; color: var(--soft); font-weight: 600; }
th[data-sorted]::after { content: " \\25be"; }
th[data-sorted="up"]::after { content: " \\25b4"; }
.first-is-best tbody tr:first-child { font-weight: 600; }
td:last-child { white-space: normal; min-width: 160px; }
.text td { white-space: pre-wrap; min-width: 120px; max-width: 420px; vertical-align: top; }
.bad { color: #b3372f; }
.good { color: #2b7a4b; }
.plot { height: 440px; }
@media print { th { cursor: auto; } section { break-inside: avoid; } }
"""

SCRIPT = """
const figures = JSON.parse(document.getElementById("figures").textContent);
for (const place of document.querySelectorAll("[data-figure]")) {
  const figure = figures[place.dataset.figure];
  Plotly.newPlot(place, figure.data, figure.layout, { responsive: true, displaylogo: false });
}

const text = (row, column) => row.cells[column].textContent;
const compare = (a, b) => {
  if (a === "" || b === "") return (a === "") - (b === "");  // what is not known comes last
  return isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
};
const sort = (table) => (event) => {
  const heading = event.target.closest("th");
  if (!heading) return;
  const up = heading.dataset.sorted !== "up";
  for (const other of table.tHead.rows[0].cells) delete other.dataset.sorted;
  heading.dataset.sorted = up ? "up" : "down";
  const column = heading.cellIndex;
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => compare(text(a, column), text(b, column)) * (up ? 1 : -1));
  table.tBodies[0].append(...rows);
};
for (const table of document.querySelectorAll("table")) {
  table.tHead.addEventListener("click", sort(table));
}
"""
