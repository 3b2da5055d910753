"""The README's pictures show what the commands say today."""

import pytest

pytest.importorskip("pyte", reason="the environment is older than the extra dev")

from support.recordings import IMAGES, RECORDINGS, draw, record, words


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.slow
def test_a_picture_shows_what_the_commands_say_today(name: str) -> None:
    recording = RECORDINGS[name]
    now = words(draw(recording, record(recording)))
    assert now == words((IMAGES / f"{name}.svg").read_text(encoding="utf-8")), "make pictures"


def test_every_picture_is_shown_and_recorded_here() -> None:
    pictures = {path.stem for path in IMAGES.iterdir()}
    readme = (IMAGES.parents[1] / "README.md").read_text(encoding="utf-8")
    shown = {name for name in pictures if f"docs/images/{name}.svg" in readme}
    # The demo's was cut from one run by hand, and says so: what is sampled there differs.
    assert pictures == shown == {*RECORDINGS, "demo"}
