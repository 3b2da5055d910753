"""A file that we write is there whole, or what was there before still is."""

import os
from pathlib import Path

import pytest

from interlace.tools.errors import DataError
from interlace.tools.files import cache_dir, config_dir, data_dir, write_beside, write_whole


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_whole(file, "one é")
    with file.open(encoding="utf-8") as reader:
        write_whole(file, b"two")
        assert reader.read() == "one é"  # a reader has the old file, not a half-written one
    assert file.read_bytes() == b"two" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyError("a bug"), KeyboardInterrupt()])
def test_what_fails_on_the_way_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    file = tmp_path / "a.json"
    write_whole(file, "one")
    expected = DataError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), write_beside(file) as partial:
        partial.write_text("tw")
        raise error
    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "\udc80")
    assert file.read_text() == "one" and list(tmp_path.iterdir()) == [file]


def test_a_file_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"can't write .*nowhere/a: No such file or directory"):
        write_whole(tmp_path / "nowhere" / "a", "")


def test_folders_are_where_the_user_wants_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    monkeypatch.setenv("XDG_DATA_HOME", "~/d")
    monkeypatch.setenv("XDG_CONFIG_HOME", "")
    assert cache_dir() == tmp_path / "c" / "interlace"
    assert data_dir() == tmp_path / "d" / "interlace"
    assert config_dir() == tmp_path / ".config" / "interlace"
    assert os.fspath(cache_dir("matplotlib")).endswith("c/matplotlib")
