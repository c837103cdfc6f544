"""The machine: what it is, and whether others leave it alone."""

import os
import platform
import random
import resource
import socket
import time
from pathlib import Path


def describe():
    cpu = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
           if line.startswith("model name")]
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {"cores": os.cpu_count(), "cpu": cpu[0] if cpu else platform.machine(), "kernel": platform.release(),
            "memory_gib": round(int(memory) / 1024**2), "system": platform.freedesktop_os_release()["PRETTY_NAME"]}


def raise_limits():
    """Streams are descriptors; whoever is started here gets the same."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def busy():
    values = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(values) - values[3] - values[4], sum(values)


def wait_until_quiet(patience):
    """False if others used more than 4 % of the machine all the time."""
    end = time.monotonic() + patience
    while True:
        before = busy()
        time.sleep(0.5)
        after = busy()
        if (after[0] - before[0]) < 0.04 * (after[1] - before[1]):
            return True
        if time.monotonic() > end:
            return False


def free_ports(count):
    """The first of so many in a row, below those that the kernel gives to clients."""
    while True:
        first = random.randrange(20000, 32000)
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue


def wait_until_listening(port, process):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        time.sleep(0.05)
    raise RuntimeError("the server does not listen")
