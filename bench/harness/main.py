"""The command line."""

import argparse
import datetime
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from . import machine, once, report
from .servers import BENCH, SERVERS, SERVERS_DIR
from .workloads import SMOKE, WORKLOADS

ATTEMPTS = 3
WRONG = ("lost", "skipped", "repeated", "strange", "notices", "ended", "refused")


def main():
    options = parse()
    # So that what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if options.report:
        report.write(options.out)
        return
    machine.raise_limits()
    if not options.no_build:
        build(options)
    if options.smoke:
        sys.exit(smoke(options))
    servers = options.servers or sorted({name for workload in options.workloads for name in WORKLOADS[workload].servers},
                                        key=list(SERVERS).index)
    check_needs(servers)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    append(options.out, {"session": {
        "at": now(), **machine.describe(), "label": options.label,
        "versions": {name: SERVERS[name].version(options) for name in servers}}})
    for number in range(options.rounds):
        for name in options.workloads:
            workload = WORKLOADS[name]
            # Only who can do it, unless asked for by name.
            for server in servers if options.servers else workload.servers:
                if number < max(1, min(options.rounds, SERVERS[server].rounds)):
                    result = undisturbed(server, workload, options)
                    line = {"workload": name, "server": server, "round": number, "at": now(),
                            "label": options.label, **result}
                    append(options.out, line)
                    print(number + 1, name, server, brief(result), flush=True)
    report.write(options.out)


def parse():
    parser = argparse.ArgumentParser(prog="bench/run", description="Measures fanfare beside its peers. "
                                     "Servers alternate inside each round; results are appended to --out, and the "
                                     "table and the plot beside it are made anew of all that is in there.")
    essentials = [name for name, workload in WORKLOADS.items() if workload.essential]
    parser.add_argument("--workloads", type=names(WORKLOADS), default=essentials,
                        help=f"of {', '.join(WORKLOADS)}; all; by default {', '.join(essentials)}")
    parser.add_argument("--servers", type=names(SERVERS),
                        help=f"of {', '.join(SERVERS)}; by default those that can do the workload")
    parser.add_argument("--rounds", type=int, default=5, help="5; slow servers have fewer")
    parser.add_argument("--out", type=Path, default=BENCH / "results" / "results.jsonl")
    parser.add_argument("--label", default="", help="a word that is kept with the results")
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for a quiet machine before a run")
    parser.add_argument("--attempts", type=int, default=ATTEMPTS, help="runs of a round, if others disturb them")
    parser.add_argument("--fanfare", help="another fanfare program than this checkout's")
    parser.add_argument("--no-build", action="store_true", help="everything is built")
    parser.add_argument("--smoke", action="store_true", help="seconds: does the bench work?")
    parser.add_argument("--report", action="store_true", help="only the table and the plot, of what is in --out")
    options = parser.parse_args()
    options.fanfare_is_ours = options.fanfare is None
    options.fanfare = options.fanfare or str(BENCH.parent / "target" / "dist" / "fanfare")
    return options


def names(known):
    def parse_names(text):
        chosen = list(known) if text == "all" else text.split(",")
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(known)}")
        return chosen
    return parse_names


def build(options):
    wanted = set(options.servers or SERVERS)
    if options.fanfare_is_ours:
        subprocess.run(["cargo", "build", "--quiet", "--profile", "dist", "--locked", "--bin", "fanfare"], cwd=BENCH.parent, check=True)
    peers = [] if not options.smoke else ["-p", "load", "-p", "bench-limit", "-p", "bench-httpserver"]
    subprocess.run(["cargo", "build", "--quiet", "--release", "--locked", *peers], cwd=BENCH, check=True)
    if "better-sse" in wanted and not options.smoke and shutil.which("npm"):
        subprocess.run(["npm", "ci", "--silent"], cwd=SERVERS_DIR / "better-sse", check=True)


def check_needs(servers):
    missing = {need for name in servers for need in SERVERS[name].needs if not shutil.which(need)}
    if missing:
        sys.exit(f"not found: {', '.join(sorted(missing))}. "
                 "Debian: apt-get install --no-install-recommends nginx libnginx-mod-nchan pushpin nodejs npm")


def undisturbed(server, workload, options):
    for attempt in range(1, options.attempts + 1):
        result = once.measure(server, workload, options)
        result["attempts"] = attempt
        if not result.get("disturbed"):
            break
    return result


def smoke(options):
    """Small numbers: that all runs and nothing is lost, not how fast."""
    options.patience = 0
    failed = False
    for name, workload in SMOKE.items():
        for server in workload.servers:
            result = once.measure(server, workload, options)
            wrong = result.get("error") or {key: result[key] for key in WRONG if result[key]} or (
                result["deliveries"] == 0 and "nothing was delivered")
            failed |= bool(wrong)
            print(name, server, brief(result), f"WRONG: {wrong}" if wrong else "", flush=True)
    return failed


def brief(result):
    if "error" in result:
        return result["error"]
    shown = {key: result[key] for key in ("deliveries_per_s", "published_per_s", "cpu_us_per_delivery", "bytes_per_client")}
    shown = {key: round(value, 2) for key, value in shown.items() if value}
    shown |= {"p50_us": result["latency_us"]["p50"], "p99_us": result["latency_us"]["p99"]}
    shown |= {key: result[key] for key in WRONG if result[key]}
    return " ".join(f"{key}={value}" for key, value in shown.items()) + (
        f" DISTURBED by {result['foreign_cpu']:.2f} cores" if result["disturbed"] else "")


def append(path, line):
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")


def now():
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
