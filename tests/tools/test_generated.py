"""What `make generate` and `make verify` stand on."""

import sys
from pathlib import Path

import pytest

from tools import generate, generated, verify
from tools.generated import Generated, GenerationError


def part_writing(script: str, *, needs: tuple[str, ...] = ()) -> Generated:
    """A part made by a Python script that finds the folder to write below in `out`."""
    prelude = "import pathlib, sys; out = pathlib.Path(sys.argv[1]) / 'made'; out.mkdir(); "
    return Generated("sample", ("made",), (sys.executable, "-c", prelude + script, "{out}"), needs)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree that the tools take for theirs."""
    for module in (generate, generated, verify):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path


def test_generating_writes_what_is_new_and_removes_what_is_no_longer_made(tree: Path) -> None:
    generate.generate(part_writing("(out / 'old.txt').write_text('1')"))
    generate.generate(part_writing("(out / 'new.txt').write_text('2')"))
    assert [path.name for path in (tree / "made").iterdir()] == ["new.txt"]


def test_a_failing_command_changes_nothing(tree: Path) -> None:
    generate.generate(part_writing("(out / 'kept.txt').write_text('1')"))
    with pytest.raises(GenerationError, match=r"sample.*ended with status 3"):
        generate.generate(part_writing("(out / 'half.txt').write_text('2'); sys.exit(3)"))
    assert [path.name for path in (tree / "made").iterdir()] == ["kept.txt"]


def test_a_command_that_writes_nothing_is_an_error(tree: Path) -> None:
    with pytest.raises(GenerationError, match="did not write made"):
        generate.generate(part_writing("out.rmdir()"))


def test_verify_names_every_difference(tree: Path) -> None:
    generate.generate(part_writing("[(out / name).write_text('one') for name in ('same', 'edited', 'stray')]"))
    (tree / "made" / "edited").write_text("two")
    found = verify.verify(part_writing("[(out / name).write_text('one') for name in ('same', 'edited', 'absent')]"))
    assert [line.splitlines()[0] for line in found] == [
        "made/absent: missing",
        "made/stray: no longer made",
        "made/edited: differs",
    ]
    assert "+one" in found[2]


@pytest.mark.parametrize(("require_all", "status"), [("", 0), ("1", 1)])
def test_a_missing_program_is_skipped_by_name_unless_all_is_required(
    require_all: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRACE_TEST_REQUIRE_ALL", require_all)
    monkeypatch.setattr(verify, "GENERATED", (part_writing("", needs=("a-program-that-is-not-there",)),))
    assert verify.main() == status
    assert "sample" in (printed := capsys.readouterr().out)
    assert "a-program-that-is-not-there is not installed" in printed
