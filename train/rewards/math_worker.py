"""The process in which math-verify compares two expressions: run as a script, one JSON line each.

It may be made to compute for ever or to eat all memory by what a policy wrote, so it has limits
that the kernel keeps: CPU time for each pair (SIGPROF, not caught, ends the process in the middle
of any computation) and memory. Nothing of the package is imported.
"""

import json
import os
import resource
import signal
import sys
from typing import Any


def main() -> None:
    """Answer requests until the input ends."""
    seconds, memory = float(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no reply

    import logging

    from math_verify import parse, verify

    logging.disable()

    # None: math-verify's own limits are signals that only a main thread can use, and they can't
    # stop a computation inside C. Ours can.
    def read(text: str) -> list[Any]:
        found: list[Any] = parse(f"\\boxed{{{text}}}", parsing_timeout=None)
        return found

    # What is made once, at the first use, must not count against a policy's expression.
    for a, b in (("x^2+2x+1", "(x+1)^2"), ("\\{1,2\\}", "1, 2"), ("(1,\\pi)", "0.5")):
        verify(read(a), read(b), timeout_seconds=None)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        gold, answer = json.loads(line)
        try:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            golds = read(gold)
            # Whatever ends the process before this line is not the answer's doing.
            print(json.dumps({"gold": bool(golds)}), file=out, flush=True)
            answers = read(answer) if golds else []
            equal = bool(answers) and verify(golds, answers, timeout_seconds=None)
            signal.setitimer(signal.ITIMER_PROF, 0)
        except (Exception, RecursionError, MemoryError):  # boundary: whatever sympy makes of it
            signal.setitimer(signal.ITIMER_PROF, 0)
            equal = False
        print(json.dumps({"equal": bool(equal)}), file=out, flush=True)


if __name__ == "__main__":
    main()
