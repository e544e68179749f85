"""What the gate says of a text, and whether a text that it passes does harm.

Harm is judged without the gate's own reasoning, twice. DuckDB itself is asked which relations the text reads: none may
be missing from those that the gate names. And the text is run on the plain engine on which attacks succeed, with the
named relations in place, as queryd has them: it must tell no secret and change nothing, whatever it is made of.
"""

from dataclasses import dataclass
from enum import StrEnum

import duckdb

from kernel.dataset_sql import folded
from queryd.gate import GateError, check


class Verdict(StrEnum):
    """UNPARSED: the parser already refuses it, or it has more than a parser can take."""

    REFUSED = "refused"
    UNPARSED = "unparsed"
    PASSED = "passed"


@dataclass(frozen=True, slots=True)
class Judged:
    """`names` are the parts of the relations that a text which passed may read; `error` is why another did not."""

    verdict: Verdict
    names: tuple[tuple[str, ...], ...] = ()
    error: GateError | None = None

    def is_refused(self, datasets: frozenset[str]) -> bool:
        """Whether queryd refuses it where these are all datasets that there are."""
        return self.verdict is not Verdict.PASSED or not {".".join(parts) for parts in self.names} <= datasets


def judged(connection: duckdb.DuckDBPyConnection, text: str) -> Judged:
    try:
        names = check(connection, text).names
    except GateError as error:
        return Judged(Verdict.UNPARSED if error.kind == "failed" else Verdict.REFUSED, error=error)
    return Judged(Verdict.PASSED, tuple(name.parts for name in names))


def not_named(connection: duckdb.DuckDBPyConnection, text: str, names: tuple[tuple[str, ...], ...]) -> set[str]:
    """Relations that the engine finds in a text and the gate does not name; none where the engine cannot bind it."""
    try:
        found = connection.get_table_names(text, qualified=True)
    except duckdb.Error:
        return set()
    known = {tuple(map(folded, parts)) for parts in names}
    return {name for name in found if _parts(connection, name) not in known}


def _parts(connection: duckdb.DuckDBPyConnection, name: str) -> tuple[str, ...]:
    (found,) = check(connection, f"from {name}").names
    return tuple(map(folded, found.parts))
