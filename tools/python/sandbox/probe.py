"""Which walls this machine lets us raise, each one tried: what `interlace doctor` tells."""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable

from ..programs import python_program
from ..walls import landlock, namespaces, seccomp
from ..walls.self_test import failure_in_child

__all__ = ["main", "probe"]


def probe() -> dict[str, str]:
    """Each wall, and "ok" or why it can't be raised here.

    `full` needs all of them (a user namespace only where we are not root), `confined` Landlock,
    the filter and, where we are not root, version 6 of Landlock. Whether they hold together is
    proved whenever a tool starts. Each is tried in its own process.
    """
    if sys.platform != "linux":
        return {"sandbox": "needs Linux"}
    program = python_program("sandbox.probe")
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    answers: dict[str, str] = json.loads(done.stdout)
    return answers


def main() -> None:
    """Try every wall and print the answers as JSON."""
    walls: dict[str, Callable[[], object]] = {
        "landlock": _landlock,
        "landlock of signals": _scopes,
        "system-call filter": _filter,
        "user namespace": lambda: namespaces.new_user_namespace(os.geteuid()),
        "mount namespace": lambda: _namespace(namespaces.NEWNS),
        "process namespace": lambda: _namespace(namespaces.NEWPID),
        "network namespace": lambda: _namespace(namespaces.NEWNET),
        "ipc namespace": lambda: _namespace(namespaces.NEWIPC),
        "host name namespace": lambda: _namespace(namespaces.NEWUTS),
        "user ids for sessions": _own_user,
        "list of child processes": lambda: os.stat(f"/proc/self/task/{os.getpid()}/children"),
        "process handles": lambda: os.close(os.pidfd_open(os.getpid())),
    }
    print(json.dumps({name: failure_in_child(trial) or "ok" for name, trial in walls.items()}))


def _no_new_privileges() -> None:
    if ctypes.CDLL(None).prctl(38, 1, 0, 0, 0):
        raise OSError("no_new_privs can't be set")


def _landlock() -> None:
    _no_new_privileges()
    landlock.restrict([("/proc", landlock.READ)])
    try:
        os.listdir("/")
    except PermissionError:
        return
    raise OSError("it does not hold")


def _scopes() -> None:
    if landlock.abi() < 6:
        raise OSError(f"this kernel has version {landlock.abi()}; signals need 6 (Linux 6.12)")
    _no_new_privileges()
    landlock.restrict([])
    try:
        os.kill(os.getppid(), 0)
    except PermissionError:
        return
    raise OSError("it does not hold")


def _filter() -> None:
    _no_new_privileges()
    seccomp.install([], same_user=False)
    try:
        namespaces.unshare(namespaces.NEWUTS, "")
    except OSError:
        return
    raise OSError("it does not hold")


def _namespace(kind: int) -> None:
    if os.geteuid():
        namespaces.new_user_namespace(os.geteuid())
    namespaces.unshare(kind, "refused")


def _own_user() -> None:
    if os.geteuid():
        raise OSError("only root can give sessions user ids of their own")
    os.setgroups([])
    os.setresuid(60_578, 60_578, 60_578)
