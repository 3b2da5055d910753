"""Python programs that begin with the heavy imports done: real processes, forked from a warm one.

`Popen` and `run` are used as those of `subprocess`, with a command of `sys.executable` and a script
or `-c` and code. torch and transformers take longer to import than most programs of the tests run;
here they are imported once, in a process that then forks for each program. Everything else is as
in a process of its own: environment, working directory, streams, signals, the exit code, what is
done at exit; only the memory is left to the kernel then, since to take the imports apart takes a
second. The programs are children of this process. What is measured in imports is no work for it.
"""

import array
import atexit
import ctypes
import fcntl
import functools
import importlib
import json
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import types
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

HEAVY = (
    "torch",
    "transformers",
    "transformers.modeling_utils",
    "transformers.models.qwen3.modeling_qwen3",
    "transformers.models.auto.modeling_auto",
    "safetensors.torch",
    "numpy.random",
    "pydantic.json_schema",
    "pydantic.type_adapter",
    "rich.markdown",
    "rich.status",
    "typer.main",
    "prompt_toolkit",
    "jinja2",
    "httpx",
    "yaml",
    "math_verify",
    "peft",
    "langgraph.graph",
    "langgraph.prebuilt",
    "langchain_core.messages",
)
"""What programs find imported, where it is installed: nothing of ours."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
_prctl = ctypes.CDLL(None).prctl


class Popen(subprocess.Popen[str]):
    """A program that runs. `terminal`: its stdin is a terminal, which is to be its own."""

    def __init__(self, *arguments: Any, terminal: bool = False, **settings: Any) -> None:
        self._terminal = terminal
        super().__init__(*arguments, **{**settings, "text": True})

    def __exit__(self, failed: type[BaseException] | None, *more: Any) -> None:
        if failed is not None:
            self.kill()  # instead of waiting for what may never end
        super().__exit__(failed, *more)

    def _execute_child(self, args: Any, *more: Any) -> None:
        cwd, env = more[4:6]
        ours = more[9:15]  # both ends of stdin, stdout and stderr
        program = [os.fspath(each) for each in args]
        assert program[0] == sys.executable
        request = {
            "program": program[1:],
            "folder": os.fspath(cwd or os.getcwd()),
            "environment": dict(os.environ if env is None else env),
            "terminal": self._terminal,
        }
        theirs = (ours[0], ours[3], ours[5])
        fds = [given if given >= 0 else own for own, given in enumerate(theirs)]
        try:
            self.pid = _warm().start(request, fds)
            self._child_created = True
        finally:
            self._close_pipe_fds(*ours)  # type: ignore[attr-defined]


def run(
    command: Sequence[Any], *, input: str | None = None, timeout: float | None = None, **how: Any
) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end, as `subprocess.run` with `text=True` does."""
    if how.pop("capture_output", False):
        how |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        how["stdin"] = subprocess.PIPE
    with Popen(command, **how) as process:
        out, err = process.communicate(input, timeout=timeout)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


class _Warm:
    """The process that has everything imported."""

    def __init__(self) -> None:
        _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # what it forks is left to this process
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
                | {"OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
            )
        atexit.register(self._end)

    def _end(self) -> None:
        self._control.close()
        self._process.kill()
        self._process.wait()

    def start(self, request: dict[str, Any], fds: Sequence[int]) -> int:
        """The number of the process that runs the program."""
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
        self._control.sendmsg([json.dumps(request).encode()], [rights])
        return int(self._control.recv(64))


@functools.cache
def _warm() -> _Warm:
    return _Warm()


def _serve(control: socket.socket, owner: int) -> tuple[dict[str, Any], list[int]] | None:
    """Fork for each request; returns it in the process that is to run it, and None at the end."""
    while True:
        data, fds, _, _ = socket.recv_fds(control, 1 << 20, 3)
        if not data:
            return None
        between = os.fork()
        if between:
            os.waitpid(between, 0)
            for fd in fds:
                os.close(fd)
            continue
        between = os.getpid()
        if os.fork():
            os._exit(0)
        while os.getppid() == between:
            time.sleep(0.0005)
        assert os.getppid() == owner
        control.send(str(os.getpid()).encode())  # not before the owner can wait for it
        control.close()
        return json.loads(data), fds


def _become(request: dict[str, Any], fds: Sequence[int]) -> None:
    """Run the program in this process."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    for own, fd in enumerate(fds):
        os.dup2(fd, own)
        os.close(fd)
    if request["terminal"]:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    random.seed()
    with suppress(KeyError):
        sys.modules["numpy.random"].seed()
    first, *rest = request["program"]
    added = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [
        "" if first == "-c" else str(Path(first).resolve().parent),
        *filter(None, added),
    ]
    importlib.invalidate_caches()
    if first != "-c":
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")
        return
    sys.argv = ["-c", *rest[1:]]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(rest[0], "<string>", "exec"), vars(main))


if __name__ == "__main__":
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for name in HEAVY:
        with suppress(ImportError):
            importlib.import_module(name)
    asked = _serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
    if asked is not None:
        _prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)
        code: object = None
        try:
            _become(*asked)
        except SystemExit as end:
            code = end.code
        if not isinstance(code, int | None):
            print(code, file=sys.stderr)
            code = 1
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            try:
                if not stream.closed:
                    stream.flush()
            except OSError:  # nobody reads it
                code = 120
        os._exit(code or 0)
