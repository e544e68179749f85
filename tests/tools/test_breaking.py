"""`make breaking` on a small tree with the real rules."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tools import breaking
from tools.generated import ROOT

RELEASED = """
syntax = "proto3";
package sample.v1;
import "buf/validate/validate.proto";
message Sample {
  string name = 1 [(buf.validate.field).string.max_len = 9];
  string kind = 2;
}
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    shutil.copytree(ROOT / "protos" / "vendor", tmp_path / "protos" / "vendor")
    monkeypatch.setattr(breaking, "ROOT", tmp_path)
    write_contract(tmp_path, RELEASED)
    return tmp_path


def write_contract(tree: Path, text: str) -> None:
    contract = tree / "protos" / "sample" / "v1" / "sample.proto"
    contract.parent.mkdir(parents=True, exist_ok=True)
    contract.write_text(text)


def release(tree: Path) -> None:
    image = tree / breaking.IMAGE
    image.parent.mkdir()
    subprocess.run([breaking.BUF, "build", "--exclude-source-info", "--output", str(image)], cwd=tree, check=True)


def test_without_a_release_it_passes_and_says_why(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tree.is_dir()
    assert breaking.main() == 0
    assert "no release yet" in capsys.readouterr().out


def test_an_added_field_breaks_nobody(tree: Path) -> None:
    release(tree)
    write_contract(tree, RELEASED.replace("  string kind = 2;\n", "  string kind = 2;\n  string more = 3;\n"))
    assert breaking.main() == 0


def test_a_removed_field_breaks_callers(tree: Path) -> None:
    release(tree)
    write_contract(tree, RELEASED.replace("  string kind = 2;\n", ""))
    assert breaking.main() != 0


def test_the_vendored_vocabulary_may_shrink(tree: Path) -> None:
    release(tree)
    vendored = tree / "protos" / "vendor" / "buf" / "validate" / "validate.proto"
    lines = [line for line in vendored.read_text().splitlines(keepends=True) if "not_contains" not in line]
    vendored.write_text("".join(lines))
    assert breaking.main() == 0
