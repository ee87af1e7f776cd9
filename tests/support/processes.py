"""Small helpers for the servers that tests start: free ports, waiting, ending."""

import random
import socket
import subprocess
import time
from collections.abc import Callable

import psutil

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A loopback port that nobody listens on, below the range the kernel hands to outgoing connections: a
    server that is down for a moment finds its port free again.
    """
    for port in random.sample(range(20_000, 32_000), 200):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free loopback port among 200 tried")


def wait_until_ready(
    process: subprocess.Popen[bytes], ready: Callable[[], bool], *, seconds: float, log: Callable[[], str]
) -> None:
    """Return once `ready()` holds; raise with the end of the log when the process ends or `seconds` pass."""
    deadline = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode} before it was ready:\n{log()[-3000:]}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"not ready within {seconds:.0f} s:\n{log()[-3000:]}")
        time.sleep(0.05)


def end(process: subprocess.Popen[bytes], signal: int, *, seconds: float) -> None:
    """Send `signal` and wait; a process that outlives `seconds` is killed. Ended processes are left alone."""
    if process.poll() is not None:
        return
    process.send_signal(signal)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def cut_power(process: subprocess.Popen[bytes]) -> None:
    """Kill the process with all that it has started, none of which gets to act on another's death."""
    if process.poll() is None:
        parent = psutil.Process(process.pid)
        parent.suspend()
        children = parent.children(recursive=True)
        for child in children:
            child.kill()
        parent.kill()
        process.wait()
        psutil.wait_procs(children, timeout=10)
