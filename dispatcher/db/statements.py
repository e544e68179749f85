"""Named SQL from the `.sql` file beside a slice. Owns the file format; connects to nothing.

A file is a list of statements, each under a header line; the name is the name of the store's method:

    -- name: claim_tasks
    -- Intent of the statement, and the index it relies on.
    select ... where task_id = any(%(task_ids)s);

Lines that only hold a comment are dropped, so that a percent sign in prose is no parameter; a percent sign in the SQL
itself is written `%%`. The header line is sent along: `pg_stat_activity` and the server's log show the name.
"""

import difflib
import importlib.resources
import re
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from typing import Self

from dispatcher.db.errors import StatementError

_HEADER = re.compile(r"\s*--\s*name\s*:\s*(?P<name>.*?)\s*$")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Statements:
    """The statements of one file: `statements.claim_tasks`, `statements["claim_tasks"]`. Immutable.

    A name that is not there raises StatementError with the file and the nearest name.
    """

    __slots__ = ("_source", "_texts")

    def __init__(self, text: str, source: str) -> None:
        """`source` names the file in errors. Raises StatementError with file:line."""
        self._source = source
        self._texts = _parse(text, source)

    @classmethod
    def load(cls, package: str, file: str = "queries.sql") -> Self:
        """Reads the file that lies in the package: `Statements.load("dispatcher.tasks")`."""
        resource: Traversable = importlib.resources.files(package) / file
        source = f"{package.replace('.', '/')}/{file}"
        try:
            return cls(resource.read_text(encoding="utf-8"), source)
        except FileNotFoundError as error:
            raise StatementError(f"{source}: there is no such file") from error

    def __getitem__(self, name: str) -> str:
        try:
            return self._texts[name]
        except KeyError:
            near = difflib.get_close_matches(name, self._texts, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise StatementError(f"{self._source}: no statement is named {name}{hint}") from None

    def __getattr__(self, name: str) -> str:
        if name.startswith("_"):  # copy and pickle probe such names, and mean an AttributeError
            raise AttributeError(name)
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def __contains__(self, name: object) -> bool:
        return name in self._texts


def _parse(text: str, source: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    lines_of: dict[str, int] = {}
    name, body = "", list[str]()

    def finish() -> None:
        if name:
            sql = "\n".join(body).strip().removesuffix(";").rstrip()
            if not sql:
                raise StatementError(f"{source}:{lines_of[name]}: {name} has no SQL")
            texts[name] = f"-- name: {name}\n{sql}"

    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(line)
        if header:
            finish()
            name, body = header["name"], []
            if not _NAME.fullmatch(name):
                raise StatementError(f"{source}:{number}: {name!r} is no name: lower case letters, digits and _")
            if name in lines_of:
                raise StatementError(f"{source}:{number}: {name} is already the name of line {lines_of[name]}")
            lines_of[name] = number
        elif line.strip() and not line.lstrip().startswith("--"):
            if not name:
                raise StatementError(f"{source}:{number}: SQL before the first `-- name:` line")
            body.append(line.rstrip())
    finish()
    return texts
