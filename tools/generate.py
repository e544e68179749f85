"""`make generate`: makes every generated part of the tree again.

Each part is made in a temporary folder first; only files that differ are written and only files that are no longer made
are removed, so that a failed command changes nothing and a program running from the tree sees no gap.
"""

import sys
import tempfile
from pathlib import Path

from tools.generated import GENERATED, ROOT, Generated, GenerationError, files_of, make, missing_program


def replace(part: Generated, made: dict[str, bytes]) -> tuple[int, int]:
    """Make the tree's files of this part equal to `made`; answers how many were written and removed."""
    present = files_of(part, ROOT)
    changed = {name: content for name, content in made.items() if present.get(name) != content}
    for name, content in changed.items():
        target = ROOT / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    surplus = present.keys() - made.keys()
    for name in surplus:
        (ROOT / name).unlink()
    return len(changed), len(surplus)


def generate(part: Generated) -> None:
    with tempfile.TemporaryDirectory(prefix="generate-") as folder:
        make(part, Path(folder))
        written, removed = replace(part, files_of(part, Path(folder)))
    print(f"generate: {part.name}: {written} written, {removed} removed")


def main(names: list[str]) -> int:
    """Generate the parts of these names, or all; 1 if one could not be made."""
    unknown = set(names) - {part.name for part in GENERATED}
    if unknown:
        print(f"generate: no such part: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    for part in GENERATED:
        if names and part.name not in names:
            continue
        missing = missing_program(part)
        if missing:
            print(f"generate: {part.name}: SKIPPED, {missing} is not installed")
            continue
        try:
            generate(part)
        except GenerationError as error:
            print(f"generate: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
