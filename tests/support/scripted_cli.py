"""The command line with an engine that says what a script tells it, where a test is of the wiring.

    REPLIES=replies.json python scripted_cli.py COMMAND [OPTION...]

A reply may hold `{has:WORDS}`: whether the words stand in what the model was asked to go on from;
and `{kill}`: the process is killed where that would be said.
"""

import json
import os
import re
import signal
import tempfile
from collections import deque
from functools import cache
from pathlib import Path

from interlace.agent import agent
from interlace.agent.cli.main import main
from interlace.rollout.engines import Request, ScriptedEngine
from support.tiny_models import byte_tokenizer


@cache
def replies() -> deque[str]:
    """Those that are left, whichever model is asked."""
    return deque(json.loads(Path(os.environ["REPLIES"]).read_text()))


def load(name: str, **_: str | None) -> ScriptedEngine:
    tokenizer = byte_tokenizer(Path(tempfile.mkdtemp(dir=os.environ["XDG_STATE_HOME"])))

    def reply(request: Request) -> str:
        context = tokenizer.decode(request.ids.tolist())
        has = re.compile(r"\{has:([^}]*)\}")
        said = has.sub(lambda found: str(found[1] in context), replies().popleft())
        if "{kill}" in said:
            os.kill(os.getpid(), signal.SIGKILL)
        return said

    engine = ScriptedEngine(tokenizer, reply, delay=0.001)
    engine.name = name
    return engine


if __name__ == "__main__":
    setattr(agent, "load_engine", load)  # noqa: B010 (the type is that of the real one)
    main()
