"""A schema as text: the same text for the same schema, so that a file in the repository can be compared with it.

pg_dump writes it; what it adds about itself, about the session and about owners is taken out.
"""

import difflib
import os
import re
import subprocess

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dispatcher.db.errors import MigrationError
from kernel.embedded_postgres import PostgresError, binaries

_HEADER = "-- The schema that dispatcher/db/migrations make. Generated: python -m dispatcher.db.migrate --dump\n"
_NOISE = re.compile(
    r"^(?:-- (?:Dumped |PostgreSQL database dump).*|SET .*;|SELECT pg_catalog\.set_config.*;|\\(?:un)?restrict .*|--)$",
    re.MULTILINE,
)
_OWNER = re.compile(r"; Owner: -$", re.MULTILINE)


def dump_schema(conninfo: str) -> str:
    """Tables, indexes, constraints, functions and comments of the database, in pg_dump's order of names.

    Raises MigrationError where pg_dump of the package embedded-postgres is missing or fails.
    """
    fields = conninfo_to_dict(conninfo)
    environment = {**os.environ, "LC_ALL": "C"}
    password = fields.pop("password", None)
    if password is not None:  # an argument list is there for all to read
        environment["PGPASSWORD"] = str(password)
    target = make_conninfo("", **fields)
    try:
        command = [str(binaries() / "pg_dump"), "--schema-only", "--no-owner", "--no-privileges", "--dbname", target]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    except (PostgresError, FileNotFoundError) as error:
        raise MigrationError(f"the schema cannot be dumped: {error}") from error
    if done.returncode != 0:
        raise MigrationError(f"pg_dump failed: {done.stderr.strip()}")
    text = _OWNER.sub("", _NOISE.sub("", done.stdout))
    return _HEADER + re.sub(r"\n{2,}", "\n\n", "\n" + text.strip() + "\n")


def schema_difference(expected: str, actual: str) -> str:
    """A unified diff; empty when they are the same."""
    lines = difflib.unified_diff(
        expected.splitlines(keepends=True), actual.splitlines(keepends=True), "schema.sql", "migrations"
    )
    return "".join(lines)
