"""The command line.

`run` is where the program begins: the modules of the commands are imported inside it, so that
Ctrl-C ends the program quietly before there is anything to clean up.
"""

import signal

__all__ = ["run"]


def run() -> None:
    """Run `interlace`. While its modules are imported, Ctrl-C ends it as it ends any program: the
    interpreter's own way would be a traceback through the imports.
    """
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not in the background
    if heard:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .main import main

    if heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
