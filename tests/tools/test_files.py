"""Files in and out of a folder that hostile code fills and changes, and the folder's removal."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlace.tools.python import monitor
from interlace.tools.python.files import HeldFolder, read_inside, remove_tree, write_inside


def nested(folder: Path, depth: int) -> None:
    """Folders in folders, deeper than a path can be long."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(os.open("file", os.O_CREAT, dir_fd=below))
        os.close(here)
        here = below
    os.close(here)


def closed(folder: Path) -> None:
    """Folders that their owner may not enter."""
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/file").touch()
    (folder / "a/b").chmod(0)
    (folder / "a").chmod(0)


def special(folder: Path) -> None:
    """What is neither file nor folder, and names of every kind."""
    os.mkfifo(folder / "fifo")
    os.symlink("/", folder / "link to all")
    os.symlink("nowhere", folder / "broken")
    (folder / "\udcff\n").mkdir()
    (folder / ("n" * 255)).mkdir()
    (folder / ("n" * 255) / ("n" * 255)).mkdir()


@pytest.mark.parametrize("fill", [lambda folder: nested(folder, 5_000), closed, special])
def test_whatever_code_leaves_behind_is_removed_and_nothing_else(
    fill: Callable[[Path], None], tmp_path: Path
) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    (outside / "file").write_text("kept")
    folder.mkdir()
    os.symlink(outside, folder / "link")
    fill(folder)
    remove_tree(folder)
    assert not folder.exists()
    assert (outside / "file").read_text() == "kept"
    remove_tree(folder)  # once more is no error


PATHS = st.lists(st.sampled_from(["a", "b", "..", ".", "", "l", "up"]), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(PATHS.map("/".join), st.binary(max_size=20))
def test_no_path_leads_outside(
    tmp_path_factory: pytest.TempPathFactory, path: str, data: bytes
) -> None:
    folder = tmp_path_factory.mktemp("f") / "work"
    (folder / "a").mkdir(parents=True)
    os.symlink("a", folder / "l")
    os.symlink("..", folder / "a/up")
    os.symlink("../..", folder / "up")
    try:
        write_inside(HeldFolder(folder), path, data)
    except OSError:
        pass
    else:
        assert read_inside(HeldFolder(folder), path) == data
    assert [entry.name for entry in folder.parent.iterdir()] == ["work"]


def test_a_link_that_appears_in_the_last_moment_is_not_followed(tmp_path: Path) -> None:
    folder, secret = tmp_path / "work", tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("secret")
    (folder / "real").mkdir(parents=True)
    (folder / "real/file").write_text("mine")
    os.symlink("../secret", folder / "evil")
    os.symlink("real", folder / "way")
    over = threading.Event()

    def flip() -> None:
        while not over.is_set():
            for target in ("../secret", "real"):
                os.symlink(target, folder / "new")
                os.replace(folder / "new", folder / "way")

    attacker = threading.Thread(target=flip)
    attacker.start()
    held = HeldFolder(folder)
    try:
        seen = set()
        for _ in range(3_000):
            try:
                seen.add(read_inside(held, "way/file"))
                write_inside(held, "way/file", b"mine")
            except OSError:
                continue
    finally:
        over.set()
        attacker.join()
    assert seen <= {b"mine", b""}
    assert (secret / "file").read_text() == "secret"


def test_a_folder_that_is_held_stays_the_same_whatever_its_name_means(tmp_path: Path) -> None:
    folder, outside = tmp_path / "work", tmp_path / "home"
    folder.mkdir()
    outside.mkdir()
    (outside / "diary").write_text("secret")
    held = HeldFolder(folder)
    assert held.still(folder)
    folder.rename(tmp_path / "was")
    folder.symlink_to(outside)
    assert not held.still(folder)
    with pytest.raises(OSError):
        read_inside(held, "diary")
    write_inside(held, "new", b"x")
    assert os.listdir(outside) == ["diary"] and os.listdir(tmp_path / "was") == ["new"]
    with pytest.raises(OSError):
        HeldFolder(folder)


def test_the_watch_counts_nothing_outside_of_a_session(tmp_path: Path) -> None:
    outside, session = tmp_path / "outside", tmp_path / "session"
    outside.mkdir()
    for number in range(50):
        (outside / f"n{number}").touch()
    session.mkdir()
    (session / "work").symlink_to(outside)  # once a folder, and exchanged
    assert not monitor._too_much(session, 10**6, 20, [])
    (session / "work").unlink()
    outside.rename(session / "work")
    assert monitor._too_much(session, 10**6, 20, [])
    (tmp_path / "link").symlink_to(session)
    assert not monitor._too_much(tmp_path / "link", 10**6, 20, [])
