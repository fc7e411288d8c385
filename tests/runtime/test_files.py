"""runtime.files: a file is whole or not there; what is no plain file stays what it is."""

import os
import stat
import threading
from pathlib import Path

import pytest

from runtime.errors import InputError
from runtime.files import whole


def test_a_file_takes_its_place_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")
    with whole(path, "w") as file:
        file.write("after")
        file.flush()
        assert path.read_text() == "before"
    assert path.read_text() == "after" and list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(OSError, match="the block's own"), whole(path) as file:
        file.write(b"half")
        raise OSError("the block's own")
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_named_pipe_stays_one(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    with whole(pipe) as file:
        file.write(b"through")
    reader.join(10)
    assert read == [b"through"] and pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


def test_a_device_stays_one(tmp_path: Path) -> None:
    """By a link in a folder of ours: a wrong `whole` must not reach the machine's own device."""
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    with whole(link) as file:
        file.write(b"gone")
    assert link.is_symlink() and stat.S_ISCHR(Path(os.devnull).stat().st_mode)
    assert list(tmp_path.iterdir()) == [link]


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_one(tmp_path: Path, there: bool) -> None:
    (tmp_path / "far").mkdir()
    place, link = tmp_path / "far" / "a.txt", tmp_path / "link"
    if there:
        place.write_text("before")
    link.symlink_to(place)
    with whole(link, "w") as file:
        file.write("after")
    assert link.is_symlink() and place.read_text() == "after"
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("name", ["folder", "nowhere/a.txt", "file/a.txt"])
def test_what_cannot_be_written_is_said_first(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=f"{name} cannot be written: "), whole(tmp_path / name):
        pytest.fail("the block began")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
