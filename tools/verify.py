"""`make verify`: fails when a generated part of the tree is not what its generator makes now.

Every part of `tools/generated.py` is made in a temporary folder and compared with the tree, file by file. A part whose
program is not installed is skipped by name; with TRACE_TEST_REQUIRE_ALL=1 that is a failure too.
"""

import difflib
import os
import sys
import tempfile
from pathlib import Path

from tools.generated import GENERATED, ROOT, Generated, GenerationError, files_of, make, missing_program

SHOWN_LINES = 12
SHOWN_COLUMNS = 160  # serialized descriptors stand in one line


def differences(present: dict[str, bytes], made: dict[str, bytes]) -> list[str]:
    """One paragraph for every file that is missing, surplus or different."""
    found = [f"{name}: missing" for name in sorted(made.keys() - present.keys())]
    found += [f"{name}: no longer made" for name in sorted(present.keys() - made.keys())]
    for name in sorted(present.keys() & made.keys()):
        if present[name] != made[name]:
            found.append(f"{name}: differs\n{first_difference(present[name], made[name])}")
    return found


def first_difference(present: bytes, made: bytes) -> str:
    old, new = (content.decode(errors="replace").splitlines() for content in (present, made))
    lines = list(difflib.unified_diff(old, new, "in the tree", "made now", lineterm="", n=1))
    return "\n".join(f"    {line[:SHOWN_COLUMNS]}" for line in lines[:SHOWN_LINES])


def verify(part: Generated) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        make(part, Path(folder))
        return differences(files_of(part, ROOT), files_of(part, Path(folder)))


def main() -> int:
    require_all = os.environ.get("TRACE_TEST_REQUIRE_ALL") == "1"
    failed = False
    for part in GENERATED:
        missing = missing_program(part)
        if missing:
            failed = failed or require_all
            print(f"verify: {part.name}: {'FAILED' if require_all else 'SKIPPED'}, {missing} is not installed")
            continue
        try:
            found = verify(part)
        except GenerationError as error:
            found = [str(error)]
        failed = failed or bool(found)
        print(f"verify: {part.name}: {'FAILED, run `make generate`' if found else 'as generated'}")
        for paragraph in found:
            print(f"  {paragraph}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
