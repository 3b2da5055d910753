"""Programs of this package that run in processes of their own, and the environment they get.

They must start quickly, and what runs or forks a model's code must hold nothing of the rest of the
house. So each gets a bare package, `_interlace`, over this folder: `_interlace.sandbox.zygote` and
what that imports are loaded, and no module above them.
"""

import os
import resource
import signal
import site
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

__all__ = ["child_environment", "python_program", "reset_inherited"]

_PROGRAM = """
import sys, types
package = types.ModuleType("_interlace")
package.__path__ = [{folder!r}]
sys.modules["_interlace"] = package
from _interlace.programs import reset_inherited
from _interlace.{module} import main
reset_inherited()
main(*{arguments!r})
"""
_PASSED_ON = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH")
"""The variables of our own environment that a child gets, by exact name: none holds a secret."""


def python_program(module: str, *arguments: str) -> list[str]:
    """The command that calls `main(*arguments)` of a module below this folder, such as
    `sandbox.zygote`.
    """
    folder = str(Path(__file__).parent)
    program = _PROGRAM.format(folder=folder, module=module, arguments=arguments)
    return [sys.executable, "-P", "-c", program]


def reset_inherited() -> None:
    """Set what a process inherits from its owner, and code in it would meet, to what is usual.

    The owner may have been started by a job runner that ignores signals, or with an odd umask.
    """
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # Python ignores them
        if signal.getsignal(number) == signal.SIG_IGN:
            usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, usual)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    with suppress(ValueError, OSError):  # 1 means no dump at all (core(5)); a hard 0 does not
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    os.umask(0o022)


def child_environment(session_dir: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a process whose session's folder is `session_dir`.

    A program called `python` is this interpreter, with what is installed for it.
    """
    home = session_dir / "home"
    return {
        **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        "HOME": str(home),
        "TMPDIR": str(session_dir / "tmp"),
        "IPYTHONDIR": str(home / ".ipython"),
        "MPLCONFIGDIR": str(home / ".matplotlib"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "JUPYTER_CONFIG_DIR": str(home / ".jupyter"),
        "JUPYTER_DATA_DIR": str(home / ".jupyter"),
        "JUPYTER_RUNTIME_DIR": str(home / ".jupyter"),
        "JUPYTER_NO_CONFIG": "1",
        "PYTHONUSERBASE": site.getuserbase(),  # packages of `pip install --user`, despite HOME
        "PYTHONUTF8": "1",
        "PYTHONHASHSEED": "0",  # sets print in the same order in every session
        "PYTHONDONTWRITEBYTECODE": "1",
        "PIP_RETRIES": "0",  # there is no network to wait for
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB")},
        **extra,
        "JPY_PARENT_PID": str(os.getpid()),
    }
