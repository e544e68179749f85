"""`make breaking`: fails when the contracts break callers of the last release.

The last release's contracts stand in `protos/release/image.binpb`, written at each release by `make release-image`.
As long as there was no release there is nothing to break, which is said.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from tools.generated import ROOT

IMAGE = "protos/release/image.binpb"
BUF = str(Path(sys.prefix) / "bin" / "buf")
# buf.yaml has the same rule, but buf refuses to compare a workspace of two modules with one image.
CONFIG = '{"version": "v2", "breaking": {"use": ["FILE"], "ignore": ["buf"]}}'


def build(image: Path) -> int:
    """Write the contracts of the tree as an image."""
    command = [BUF, "build", "--exclude-source-info", "--output", str(image)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def compare(image: Path) -> int:
    """Compare with the last release; the vendored vocabulary is not ours to keep."""
    command = [BUF, "breaking", str(image), "--against", IMAGE, "--config", CONFIG]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main() -> int:
    if not (ROOT / IMAGE).exists():
        print(f"breaking: passed: no release yet, so no {IMAGE} to compare with")
        return 0
    with tempfile.TemporaryDirectory(prefix="breaking-") as folder:
        image = Path(folder) / "image.binpb"
        status = build(image) or compare(image)
    print(f"breaking: {'FAILED' if status else 'passed'} against {IMAGE}")
    return status


if __name__ == "__main__":
    sys.exit(main())
