"""The TypeScript client, built and tested by its own tools, against a running stack."""

import os
import re
import shutil
import subprocess

import pytest

from tests.acceptance.conftest import ROOT, RunningStack

_CLIENT = ROOT / "clients" / "typescript"
_SECONDS = 110.0


@pytest.mark.acceptance
@pytest.mark.needs_node
def test_the_typescript_client_lists_tasks_and_reads_arrow(stack: RunningStack) -> None:
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are missing")
    if not (_CLIENT / "node_modules" / "typescript").is_dir():
        pytest.skip("the TypeScript client's packages are missing: make node")
    done = subprocess.run(
        [npm, "test"],
        cwd=_CLIENT,
        env={**os.environ, "TRACE_ENDPOINTS": str(stack.home.endpoints_file)},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # Its tests of the stack skip themselves without one; here they must have run.
    assert re.search(r"^\S+ skipped 0$", done.stdout, re.MULTILINE), done.stdout
