"""What is measured against what: how each server is started, and how it is spoken to."""

import json
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent
BUILT = BENCH / "target" / "release"
SERVERS_DIR = BENCH / "servers"

# The places of one channel and of several in a path, and of an event in a publish.
PLAIN = []
FANFARE = ["--subscribe", "/events?{channels}", "--each", "channel=bench/{channel}", "--between", "&",
           "--publish", "/publish", "--content-type", "application/json", "--body",
           '{"channel":"bench/{channel}","data":"{payload}"}']
PUSHPIN = ["--connecting", "32", "--content-type", "application/json", "--publish", "/publish/", "--body", json.dumps(
    {"items": [{"channel": "c{channel}", "formats": {"http-stream": {"content": "data: {payload}\n\n"}}}]})]


@dataclass(frozen=True)
class Server:
    # The command, from a port and a folder of its own.
    start: callable
    version: callable
    args: list[str] = field(default_factory=list)
    # Where it takes publishes, counted from its port.
    publish_port: int = 0
    # Seconds from its listening to its serving.
    patience: float = 0.3
    # What it needs beside it, which is not counted.
    aside: callable = None
    # Rounds that are enough for it.
    rounds: int = 99
    # Needed beyond cargo's builds.
    needs: tuple[str, ...] = ()


def hub(*flags):
    def start(port, folder, options):
        given = [flag.replace("@", f"{folder}/events.db") for flag in flags]
        return [options.fanfare, "serve", "--listen", f"127.0.0.1:{port}", *given]
    return start


def built(name, *more):
    return lambda port, folder, options: [BUILT / name, str(port), *more]


def nginx(template):
    """nginx in the foreground, by a configuration from servers/."""
    def start(port, folder, options):
        conf = folder / "nginx.conf"
        conf.write_text(filled(template, port, folder))
        return ["nginx", "-c", conf, "-e", folder / "nginx.log"]
    return start


def pushpin(port, folder, options):
    for name in ("run", "log"):
        (folder / name).mkdir()
    conf = folder / "pushpin.conf"
    conf.write_text(filled("pushpin/pushpin.conf", port, folder))
    (folder / "routes").write_text(f"* 127.0.0.1:{port + 1}\n")
    shutil.copytree("/etc/pushpin/runner", folder / "runner")
    return ["pushpin", "--config", conf]


def better_sse(port, folder, options):
    return ["node", SERVERS_DIR / "better-sse" / "server.js", str(port)]


def filled(template, port, folder):
    text = (SERVERS_DIR / template).read_text().replace("@DIR@", str(folder))
    for n in range(6):
        text = text.replace(f"@PORT+{n}@", str(port + n))
    return text.replace("@PORT@", str(port))


def output(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip()


def debian(package):
    return lambda options: output("dpkg-query", "-W", "-f", "${Version}", package)


def locked(crate, lock=BENCH / "Cargo.lock"):
    """The version of a crate that was built."""
    def version(options):
        lines = lock.read_text().splitlines()
        return crate + " " + lines[lines.index(f'name = "{crate}"') + 1].split('"')[1]
    return version


def commit(options):
    return output(options.fanfare, "--version") + " " + output("git", "-C", BENCH, "describe", "--always", "--dirty")


def node_version(options):
    lock = json.loads((SERVERS_DIR / "better-sse" / "package-lock.json").read_text())
    return lock["packages"]["node_modules/better-sse"]["version"] + ", node " + output("node", "--version")


def rustc(options):
    return output("rustc", "--version")


SERVERS = {
    # The hub as it is delivered; its log in memory, as no peer has one.
    "fanfare": Server(hub("--log", "memory"), commit, FANFARE),
    "fanfare-httpserver": Server(built("bench-httpserver"), commit, FANFARE),
    "fanfare-file": Server(hub("--log", "@", "--durability", "process"), commit, FANFARE),
    "fanfare-full": Server(hub("--log", "@", "--durability", "full"), commit, FANFARE),
    "limit": Server(built("bench-limit", "2"), rustc, PLAIN),
    "limit-1": Server(built("bench-limit", "1"), rustc, PLAIN),
    "nchan": Server(nginx("nchan/nginx.conf"), debian("libnginx-mod-nchan"), PLAIN, needs=("nginx",)),
    "axum": Server(built("bench-axum"), locked("axum"), PLAIN),
    "actix-lab": Server(built("bench-actix-lab"), locked("actix-web-lab"), PLAIN, rounds=3),
    "better-sse": Server(better_sse, node_version, PLAIN, rounds=3, needs=("node", "npm")),
    "pushpin": Server(pushpin, debian("pushpin"), PUSHPIN, publish_port=2, rounds=3, patience=2.5, needs=("pushpin", "nginx"),
                      aside=nginx("pushpin/nginx.conf")),
}
