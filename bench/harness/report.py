"""Medians, ratios, the table, and what follows from them."""

import json
import re
import statistics
from collections import defaultdict

from . import plot
from .workloads import ALL, CPU, DURABLE, MEMORY, PUBLISHES, RATE, WORKLOADS

HEADS = {
    CPU: "CPU µs per delivery",
    RATE: "deliveries/s",
    MEMORY: "bytes per client",
    PUBLISHES: "events/s",
}
ALONE = [*DURABLE, "fanfare-httpserver"]
WRONG = ("lost", "skipped", "repeated", "strange", "notices", "ended", "refused")


class Cell:
    """What all rounds of a server say of a workload."""

    def __init__(self, workload, lines):
        good = [line for line in lines if "error" not in line]
        calm = [line for line in good if not line["disturbed"]]
        self.lines = calm or good
        self.disturbed = len(good) - len(calm)
        self.errors = [line["error"] for line in lines if "error" in line]
        self.workload = workload

    def values(self, key):
        found = (self.value(line, key) for line in self.lines)
        return [value for value in found if value is not None]

    @staticmethod
    def value(line, key):
        for part in key.split("."):
            line = line.get(part) if line else None
        return line

    def median(self, key):
        values = self.values(key)
        return statistics.median(values) if values else None

    def wrong(self):
        """What should not have been, summed up over the rounds."""
        found = {key: sum(line[key] for line in self.lines) for key in WRONG}
        words = [f"{value} {key}" for key, value in found.items() if value]
        rate = re.search(r"--rate (\d+)", self.workload.args)
        reached = self.median("published_per_s")
        if rate and reached is not None and reached < 0.97 * int(rate[1]):
            words.append(f"{reached:.0f}/s of {rate[1]} published")
        if self.disturbed:
            words.append(f"{self.disturbed} disturbed " + ("left out" if self.lines and not self.lines[0]["disturbed"] else "in it"))
        return words + self.errors[:1]


def read(path):
    """The last session, and the cells by workload and server."""
    session, runs = {}, defaultdict(lambda: defaultdict(list))
    for text in path.read_text().splitlines():
        line = json.loads(text)
        if "session" in line:
            versions = session.get("versions", {})
            session = line["session"]
            session["versions"] = versions | session["versions"]
        elif line["workload"] in WORKLOADS:
            runs[line["workload"]][line["server"] + (f" ({line['label']})" if line["label"] else "")].append(line)
    cells = {name: {server: Cell(workload, lines) for server, lines in runs[name].items()}
             for name, workload in WORKLOADS.items() if name in runs}
    return session, cells


def write(path):
    session, cells = read(path)
    tables = (line for name in cells for line in table(name, cells[name]))
    text = "\n".join([*head(session), *summary(cells), *tables, *projection(cells)])
    path.with_suffix(".md").write_text(text + "\n")
    path.with_suffix(".svg").write_text(plot.draw(session, cells, HEADS))
    print(f"{path.with_suffix('.md')}, {path.with_suffix('.svg')}")


def head(session):
    yield (f"{session['cores']} cores ({session['cpu']}), {session['memory_gib']} GiB, Linux {session['kernel']}, "
           f"{session['system']}, {session['at'][:10]}. Clients and publishers on the same machine, over loopback.")
    yield ""
    yield "; ".join(f"{name}: {version}" for name, version in session["versions"].items())


def summary(cells):
    """A line for each workload: one table of those that peers take part in, with the best beside the limit in bold, and one
    of the others."""
    for servers in (ALL, ALONE):
        names = [name for name in cells if (set(WORKLOADS[name].servers) <= set(ALONE)) == (servers is ALONE)]
        columns = [server for server in servers if any(server in cells[name] for name in names)]
        if not names:
            continue
        yield from ("", f"| | | {' | '.join(columns)} |", "| --- | --- |" + " ---: |" * len(columns))
        for name in names:
            key = WORKLOADS[name].key
            known = {server: cell.median(key) for server, cell in cells[name].items() if "limit" not in server and cell.lines}
            best = (min if key in (CPU, MEMORY) else max)(known, key=known.get, default=None)
            figures = (figure(cells[name].get(server), key, servers is ALL and server == best) for server in columns)
            what = HEADS[key] + (" (p99)" if key == RATE else "")
            yield f"| {name}: {WORKLOADS[name].title} | {what} | {' | '.join(figures)} |"


def figure(cell, key, is_best):
    if cell is None or not cell.lines:
        return ""
    time = f" ({millis(cell.median('latency_us.p99'))} ms)" if key == RATE else ""
    value = number(cell.median(key))
    return (f"**{value}**" if is_best else value) + time


def table(name, cells):
    workload = WORKLOADS[name]
    key = workload.key
    yield from ("", f"### {name}: {workload.title}", "")
    columns = {HEADS[key]: lambda cell: spread(cell, key)}
    for base in ("fanfare", "limit"):
        if base in cells and len(cells) > 1:
            columns[f"÷ {base}"] = lambda cell, base=base: ratio(cell.median(key), cells[base].median(key))
    if key != MEMORY:
        columns |= {HEADS[other]: (lambda cell, other=other: number(cell.median(other)))
                    for other in (RATE, CPU) if other != key and key != PUBLISHES}
        if key == PUBLISHES:
            columns["CPU µs per event"] = lambda cell: number(cell.median("cpu_us_per_publish"))
        of = "receipt_us" if key == PUBLISHES else "latency_us"
        columns |= {f"p{p} ms": (lambda cell, p=p: millis(cell.median(f"{of}.p{p}"))) for p in (50, 99)}
    if key == MEMORY or "connections" in workload.title or name == "W5":
        columns["MiB in all"] = lambda cell: number((cell.median("memory_connected_kib") or 0) / 1024)
    columns["runs"] = lambda cell: str(len(cell.lines))
    columns["remarks"] = lambda cell: ", ".join(cell.wrong()).replace("|", "/").replace("\n", " ")
    yield "| server | " + " | ".join(columns) + " |"
    yield "| --- |" + " ---: |" * (len(columns) - 1) + " --- |"
    for server, cell in cells.items():
        yield f"| {server} | " + " | ".join(column(cell) for column in columns.values()) + " |"


def projection(cells):
    """What 100,000 connections would take, by what 10,000 and 19,000 took."""
    idle, busy = (cells.get(name, {}).get("fanfare") for name in ("W4", "W5"))
    if not (idle and busy and idle.lines and busy.lines):
        return
    base = idle.median("memory_before_kib") / 1024
    process = 100_000 * idle.median(MEMORY) / 2**20
    kernel = 100_000 * idle.median("kernel_bytes_per_client") / 2**20
    each = busy.median(CPU)
    yield ""
    yield "### 100,000 connections"
    yield ""
    yield (f"Computed, not measured: {base:.0f} MiB and 100,000 × {idle.median(MEMORY):.0f} bytes = "
           f"{base + process:.0f} MiB of the process (W4), and {kernel:.0f} MiB of the kernel for both ends of idle sockets (W4); "
           f"an event to all is {each / 10:.2f} s of CPU (100,000 × {each:.2f} µs, W5).")


def spread(cell, key):
    values = cell.values(key)
    if not values:
        return ""
    low, high = number(min(values)), number(max(values))
    return number(statistics.median(values)) + (f" ({low}–{high})" if low != high else "")


def ratio(value, base):
    return f"{value / base:.2f}" if value is not None and base else ""


def millis(micros):
    return "" if micros is None else number(micros / 1000)


def number(value):
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
