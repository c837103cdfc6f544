"""One run: a server, its load, its end."""

import json
import os
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from . import machine
from .servers import BENCH, BUILT, SERVERS

# Cores that others may use before a run counts as disturbed.
FOREIGN = 0.10


def measure(name, workload, options):
    """What the generator says, or {"error": …}: a server that cannot do a workload is a result, too."""
    server = SERVERS[name]
    # On a disk, for those that write.
    with tempfile.TemporaryDirectory(prefix="run-", dir=BENCH / "target") as folder:
        folder = Path(folder)
        port = machine.free_ports(6)
        try:
            with running(server, port, folder, options) as process:
                quiet = machine.wait_until_quiet(options.patience)
                result = load(server, port, process.pid, workload)
        except Exception as error:  # noqa: BLE001
            return {"error": f"{type(error).__name__}: {error}"[:300]}
    result["quiet_before"] = quiet
    result["disturbed"] = result["foreign_cpu"] > FOREIGN
    return result


def load(server, port, pid, workload):
    args = [BUILT / "load", "--target", f"127.0.0.1:{port}", "--publish-target",
            f"127.0.0.1:{port + server.publish_port}", "--pid", str(pid), *server.args, *workload.args.split()]
    done = subprocess.run(args, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-250:])
    return json.loads(done.stdout)


@contextmanager
def running(server, port, folder, options):
    started = []
    try:
        with open(folder / "output.log", "w") as log:
            def start(command):
                started.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True,
                                                env=os.environ | {"NODE_ENV": "production"}))
                return started[-1]
            if server.aside:
                machine.wait_until_listening(port + 1, start(server.aside(port, folder, options)))
            process = start(server.start(port, folder, options))
            machine.wait_until_listening(port, process)
            machine.wait_until_listening(port + server.publish_port, process)
            time.sleep(server.patience)
            yield process
    finally:
        for process in started:
            end(process)


def end(process):
    """The process and all that it started: they are a session of their own."""
    for how, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            pass
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
