"""The plot: a panel of bars for each workload. SVG by hand, readable on light and on dark."""

from html import escape

from .workloads import RATE, PUBLISHES, WORKLOADS

WIDTH, LABEL, VALUE, BAR, GAP, HEAD, MARGIN = 860, 150, 110, 16, 6, 44, 16

STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1f2328; }
  .title { font-weight: 600; font-size: 13px; }
  .quiet { fill: #59636e; }
  .ground { fill: #ffffff; }
  .bar { fill: #9aa4af; } .limit { fill: #c9d1d9; } .own { fill: #0969da; } .range { stroke: #1f2328; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .quiet { fill: #9198a1; } .ground { fill: #0d1117; }
    .bar { fill: #656c76; } .limit { fill: #3d444d; } .own { fill: #4493f8; } .range { stroke: #e6edf3; }
  }
"""


def draw(session, cells, heads):
    y, parts = MARGIN, []
    for name, servers in cells.items():
        shown = {server: cell for server, cell in servers.items() if cell.values(WORKLOADS[name].key)}
        if shown:
            y, panel = draw_panel(name, shown, heads, y)
            parts += panel
    about = f"{session['cores']} cores, Linux {session['kernel']}, {session['at'][:10]}; median, and the range of the runs"
    parts.append(text(MARGIN, y + 12, about, "quiet"))
    height = y + 28
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
            f'role="img"><title>fanfare beside its peers</title><style>{STYLE}</style>'
            f'<rect class="ground" width="100%" height="100%"/>' + "".join(parts) + "</svg>\n")


def draw_panel(name, cells, heads, y):
    workload = WORKLOADS[name]
    better = "more is better" if workload.key in (RATE, PUBLISHES) else "less is better"
    parts = [text(MARGIN, y + 12, f"{name}: {workload.title}", "title"),
             text(MARGIN, y + 28, f"{heads[workload.key]}, {better}", "quiet")]
    y += HEAD
    ranked = sorted(cells.items(), key=lambda item: item[1].median(workload.key), reverse=better.startswith("more"))
    room = WIDTH - 2 * MARGIN - LABEL - VALUE
    scale = room / max(max(cell.values(workload.key)) for cell in cells.values())
    for server, cell in ranked:
        values = cell.values(workload.key)
        median, low, high = (value * scale for value in (cell.median(workload.key), min(values), max(values)))
        left, middle = MARGIN + LABEL, y + BAR / 2
        kind = "own" if server.startswith("fanfare") else "limit" if server.startswith("limit") else "bar"
        parts += [text(left - 8, y + 12, server, "", "end"),
                  f'<rect class="{kind}" x="{left}" y="{y}" width="{median:.1f}" height="{BAR}" rx="2"/>',
                  f'<path class="range" d="M{left + low:.1f} {middle}H{left + high:.1f}"/>',
                  text(left + max(median, high) + 6, y + 12, f"{cell.median(workload.key):,.{0 if median / scale >= 100 else 2}f}")]
        y += BAR + GAP
    return y + MARGIN, parts


def text(x, y, words, kind="", anchor="start"):
    return f'<text x="{x:.1f}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'
