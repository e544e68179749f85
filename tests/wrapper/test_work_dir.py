"""The scratch folder: one holder, wiped at start, with room for sockets whatever its path."""

import socket
from pathlib import Path

import pytest

from wrapper.work_dir import WorkDirError, open_work_dir


def test_a_long_path_still_has_sockets_that_nobody_else_can_reach(tmp_path: Path) -> None:
    root = tmp_path / ("long" * 20) / ("longer" * 10)
    opened = open_work_dir(root)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(opened.sockets / "1234567890.sock"))
        assert opened.sockets.stat().st_mode & 0o777 == 0o700
    finally:
        opened.close()
    assert not opened.sockets.exists()


def test_a_folder_has_one_holder_at_a_time(tmp_path: Path) -> None:
    first = open_work_dir(tmp_path)
    with pytest.raises(WorkDirError, match="another worker"):
        open_work_dir(tmp_path)
    first.close()
    open_work_dir(tmp_path).close()


def test_what_a_former_holder_left_is_wiped_also_where_it_is_read_only(tmp_path: Path) -> None:
    left = tmp_path / "bundles" / "digest"
    left.mkdir(parents=True)
    (left / "file").write_text("left")
    left.chmod(0o500)
    opened = open_work_dir(tmp_path)
    assert list((tmp_path / "bundles").iterdir()) == []
    opened.close()
