"""Writes docs/reference/errors.md from the table of errors in the contract: `python -m tools.errors_page FOLDER`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from kernel.errors import DOMAIN, ErrorRow, error_table

OUTPUT = Path("docs/reference/errors.md")

_OPENING = f"""\
<!-- Generated from protos/traceapi/types/v1/errors.proto by `make generate`. Do not edit. -->
# Errors

A call that fails carries one canonical gRPC status code and, in its details, a `google.rpc.ErrorInfo` with the domain
`{DOMAIN}` and one of the reasons below. `google.rpc.BadRequest` lists the fields at fault, all of them at once, and
`google.rpc.RetryInfo` says when the same call may be repeated. Work that fails, and an item of a batch that is refused,
is no failed call: it is an `ItemError` with a reason of the same table, in a reply that succeeded.

The message of an error is for people and may change. Programs decide by the reason, and by the metadata beside it.

The list of fields at fault travels in a trailer. gRPC for C++, Python and other languages on its core accepts 8 KiB of
metadata by default; a client that wants long lists sets `grpc.max_metadata_size` to 786432, as Trace's own clients do.
"""


def page(rows: Sequence[ErrorRow]) -> str:
    """The page: all reasons at a glance, by code, then each with its meaning and remedy."""
    codes = sorted({row.code for row in rows}, key=lambda code: int(code.value[0]))
    glance = ["## At a glance", "", "| code | reasons |", "|---|---|"]
    for code in codes:
        links = ", ".join(f"[{row.name}](#{row.name.lower()})" for row in rows if row.code is code)
        glance.append(f"| `{code.name}` | {links} |")
    entries = [_entry(row) for row in sorted(rows, key=lambda row: row.name)]
    return "\n".join([_OPENING, *glance, "", "## Reasons", "", *entries])


def _entry(row: ErrorRow) -> str:
    return f"### {row.name}\n\n`{row.code.name}`. {row.meaning}\n\nWhat to do: {row.remedy}\n"


def main(folder: str) -> None:
    """Write the page below `folder`, at its path in the tree."""
    target = Path(folder) / OUTPUT
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(error_table()), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
