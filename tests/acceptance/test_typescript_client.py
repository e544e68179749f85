"""The TypeScript client, built and tested by its own tools, against a running stack; and the how-to for it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOT, RunningStack

_CLIENT = ROOT / "clients" / "typescript"
_PAGE = ROOT / "docs" / "howto" / "query_from_typescript.md"
_SECONDS = 110.0


pytestmark = [pytest.mark.acceptance, pytest.mark.needs_node]


def test_the_typescript_client_lists_tasks_and_reads_arrow(stack: RunningStack) -> None:
    done = _run([_npm(), "test"], _CLIENT, TRACE_ENDPOINTS=str(stack.home.endpoints_file))
    assert done.returncode == 0, done.stdout + done.stderr
    # Its tests of the stack skip themselves without one; here they must have run.
    assert re.search(r"^\S+ skipped 0$", done.stdout, re.MULTILINE), done.stdout


def test_the_pages_code_runs_as_it_stands_there(stack: RunningStack, tmp_path: Path) -> None:
    """In a package of its own, which has the client by its path, as the page says."""
    built = _run([_npm(), "run", "build"], _CLIENT)
    assert built.returncode == 0, built.stdout + built.stderr
    (tmp_path / "package.json").write_text('{"name": "page", "private": true, "type": "module"}')
    (tmp_path / "page.ts").write_text("\n".join(re.findall(r"```ts\n(.*?)```", _PAGE.read_text(), re.DOTALL)))
    modules = tmp_path / "node_modules"
    modules.mkdir()
    (modules / "trace-client").symlink_to(_CLIENT)
    (modules / "@types").symlink_to(_CLIENT / "node_modules" / "@types")
    (tmp_path / ".trace").symlink_to(stack.home.root)
    strict = ["--strict", "--noUncheckedIndexedAccess", "--skipLibCheck", "--module", "nodenext", "--target", "es2022"]
    compiled = _run([str(_CLIENT / "node_modules" / ".bin" / "tsc"), *strict, "page.ts"], tmp_path)
    assert compiled.returncode == 0, compiled.stdout + compiled.stderr
    done = _run([shutil.which("node") or "node", "page.js"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "files, number,miner,gas_used\n500000n " in done.stdout
    assert "\n1001 rows\n" in done.stdout
    assert "\n100 early blocks\n" in done.stdout
    assert "line 1, column 8: the function read_text is not one that a query may call" in done.stdout


def _npm() -> str:
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are missing")
    if not (_CLIENT / "node_modules" / "typescript").is_dir():
        pytest.skip("the TypeScript client's packages are missing: make node")
    return npm


def _run(command: list[str], folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
