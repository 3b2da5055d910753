"""Plots: shown where the terminal can, saved where it can't."""

import base64
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import IO

from ....tools import Artifact
from ....tools.files import state_dir, write_whole

__all__ = ["picture_protocol", "save_artifact", "show_picture"]

_CHUNK = 4096
_ENDINGS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/svg+xml": "svg",
    "text/html": "html",
    "application/pdf": "pdf",
    "text/plain": "txt",
}


def picture_protocol(environment: Mapping[str, str]) -> str | None:
    """How this terminal shows pictures: `kitty`, `iterm`, or None where it does not."""
    program, term = environment.get("TERM_PROGRAM", ""), environment.get("TERM", "")
    if "TMUX" in environment or term.startswith(("screen", "tmux", "dumb")) or not term:
        return None
    if term == "xterm-kitty" or "KITTY_WINDOW_ID" in environment or program == "ghostty":
        return "kitty"
    return "iterm" if program in ("iTerm.app", "WezTerm") else None


def show_picture(stream: IO[str], png: bytes, protocol: str) -> None:
    """Write a PNG to the terminal, at the beginning of a line."""
    data = base64.b64encode(png).decode()
    if protocol == "iterm":
        stream.write(f"\x1b]1337;File=inline=1;size={len(png)}:{data}\x07\n")
    else:
        parts = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
        for number, part in enumerate(parts):
            head = "f=100,a=T," if not number else ""
            more = int(number < len(parts) - 1)
            stream.write(f"\x1b_G{head}m={more};{part}\x1b\\")
        stream.write("\n")
    stream.flush()


def save_artifact(artifact: Artifact) -> Path:
    """Write it below `$XDG_STATE_HOME`, else `~/.local/state`; its content gives the name.

    Raises OSError or DataError.
    """
    folder = state_dir() / ("outputs" if artifact.mime == "text/plain" else "plots")
    folder.mkdir(parents=True, exist_ok=True)
    digest = blake2b(artifact.data, digest_size=5).hexdigest()
    file = folder / f"{digest}.{_ENDINGS.get(artifact.mime, 'bin')}"
    write_whole(file, artifact.data)
    return file
