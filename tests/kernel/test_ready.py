"""The ready file."""

import json
from pathlib import Path

from kernel.ready import write_ready_file


def test_the_file_holds_the_addresses_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "run" / "ready.json"
    write_ready_file(path, {"control": "127.0.0.1:1"})
    write_ready_file(path, {"control": "127.0.0.1:2", "internal": "127.0.0.1:3"})
    assert json.loads(path.read_text()) == {"control": "127.0.0.1:2", "internal": "127.0.0.1:3"}
    assert [entry.name for entry in path.parent.iterdir()] == ["ready.json"]


def test_a_reader_of_the_old_file_is_not_disturbed(tmp_path: Path) -> None:
    path = tmp_path / "ready.json"
    write_ready_file(path, {"a": "1"})
    with path.open() as old:
        write_ready_file(path, {"a": "2"})
        assert json.load(old) == {"a": "1"}


def test_nothing_is_written_where_nobody_asked() -> None:
    write_ready_file(None, {"a": "1"})
