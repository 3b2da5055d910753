"""Files of an index that became something else: it is built again, or one sentence says which file
can't be written, and nothing is waited for.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import warm
from support.damage import device, folder, pipe

from interlace.tools.search import SearchIndex


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [pipe, folder, device, half])
def test_an_index_is_built_again(damage: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "tea.txt").write_text("Steep it for three minutes.")
    SearchIndex(tmp_path / "corpus", tmp_path / "index").prepare()
    copies: list[Path] = []
    for file in (tmp_path / "index").rglob("*.*"):
        if file.is_file() and file.suffix in (".store", ".idx", ".term", ".json", ".lock"):
            copies.append(tmp_path / f"copy{len(copies)}")
            shutil.copytree(tmp_path / "index", copies[-1])
            damage(copies[-1] / file.relative_to(tmp_path / "index"))
    code = (
        "import sys; from interlace.tools.search import SearchIndex\n"
        "from interlace.tools.errors import DataError\n"
        "for copy in sys.argv[2:]:\n"
        "    try:\n"
        "        print(len(SearchIndex(sys.argv[1], copy).find('steep', 1)))\n"
        "    except DataError as error:\n"
        "        print(error)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "corpus"), *map(str, copies)]
    done = warm.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=100)
    said = done.stdout.splitlines()
    assert len(said) == len(copies), done.stderr
    refused = [line for line in said if line != "1"]
    # The lock, and the file that names the current generation.
    assert len(refused) == 2 * (damage is folder)
    assert all("Is a directory" in line and "interlace-search." in line for line in refused)
