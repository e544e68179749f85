"""Brings the system database to the schema that this program needs, at its start.

Migrations are the files `migrations/NNNN_name.sql`, numbered from 0001 without gaps. Each runs in one transaction
together with its row in `schema_migration`, in order, all under one session lock: of many dispatchers that start at
once one migrates, the others wait and find the work done. A file that was applied is never edited again: a difference
is refused, and so is a database that is ahead of the program, which would write what the new schema forbids.

Blocking, since nothing else may run before it: call it ahead of the event loop. Statements that cannot stand in a
transaction (`create index concurrently`) cannot stand in a migration.

`python -m dispatcher.db.migrate --dump` prints the schema that all migrations make, `--check` compares it with
`dispatcher/db/schema.sql`.
"""

import argparse
import hashlib
import importlib.resources
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Self

import psycopg

from dispatcher.db.errors import MigrationError
from dispatcher.db.schema import dump_schema, schema_difference
from dispatcher.db.statements import Statements

_LOCK = int.from_bytes(hashlib.sha256(b"trace schema_migration").digest()[:8], "big", signed=True)
_FILE_NAME = re.compile(r"(?P<number>\d{4})_(?P<name>[a-z0-9_]+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file, or what the database recorded of it (then without its text)."""

    number: int
    name: str
    sha256: bytes
    text: bytes = b""

    @classmethod
    def from_file(cls, file: Traversable) -> Self:
        found = _FILE_NAME.fullmatch(file.name)
        if not found:
            raise MigrationError(f"{file.name}: a migration is called NNNN_name.sql")
        text = file.read_bytes()
        return cls(int(found["number"]), found["name"], hashlib.sha256(text).digest(), text)

    @property
    def label(self) -> str:
        return f"{self.number:04}_{self.name}"


def default_migrations() -> Traversable:
    return importlib.resources.files("dispatcher.db") / "migrations"


def read_migrations(folder: Traversable) -> list[Migration]:
    """The files of the folder by number. Raises MigrationError on a gap or a number taken twice."""
    files = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    migrations = sorted((Migration.from_file(file) for file in files), key=lambda each: (each.number, each.name))
    for expected, migration in enumerate(migrations, start=1):
        if migration.number != expected:
            raise MigrationError(
                f"{migration.label}: number {expected:04} was expected; numbers have no gaps and no doubles"
            )
    return migrations


def migrate(
    conninfo: str,
    *,
    folder: Traversable | None = None,
    lock_timeout: float = 60.0,
    statement_timeout: float = 600.0,
) -> Sequence[Migration]:
    """Applies what is missing and returns it. Seconds; `lock_timeout` bounds the wait for another migrating process.

    Raises MigrationError; migrations before the failing one stay applied.
    """
    migrations = read_migrations(folder or default_migrations())
    sql = Statements.load("dispatcher.db")
    limits = {"lock_timeout": f"{lock_timeout}s", "statement_timeout": f"{statement_timeout}s"}
    with psycopg.connect(conninfo, autocommit=True, application_name="trace-migrate") as connection:
        connection.execute(sql.set_migration_limits, limits)
        try:
            connection.execute(sql.lock_migrations, {"lock": _LOCK})
        except psycopg.errors.LockNotAvailable as error:
            raise MigrationError(f"another process has been migrating this database for {lock_timeout:g} s") from error
        # Closing the session frees the lock, whatever happens below.
        connection.execute(sql.create_schema_migration)
        applied = [Migration(*row) for row in connection.execute(sql.applied_migrations)]
        missing = _missing(migrations, applied)
        for migration in missing:
            _apply(connection, sql, migration)
        connection.execute(sql.unlock_migrations, {"lock": _LOCK})
    return missing


def _missing(migrations: Sequence[Migration], applied: Sequence[Migration]) -> Sequence[Migration]:
    """What is to be applied; raises MigrationError unless what was applied is a beginning of the files, unchanged."""
    if len(applied) > len(migrations):
        known = migrations[-1].label if migrations else "none"
        raise MigrationError(
            f"the database is ahead of this program: it has {applied[-1].label}, the program knows up to {known}."
            " Run a program at least as new as the one that migrated it"
        )
    for ours, theirs in zip(migrations, applied, strict=False):
        if (ours.number, ours.name, ours.sha256) != (theirs.number, theirs.name, theirs.sha256):
            raise MigrationError(
                f"{ours.label} differs from what was applied to the database as {theirs.label}"
                f" (sha-256 {ours.sha256.hex()[:12]} here, {theirs.sha256.hex()[:12]} there):"
                " put the file back as it was, and write the change as a new migration"
            )
    return migrations[len(applied) :]


def _apply(connection: psycopg.Connection, sql: Statements, migration: Migration) -> None:
    try:
        with connection.transaction():
            connection.execute(migration.text)  # no parameters: a file may hold many statements
            values = {"number": migration.number, "name": migration.name, "sha256": migration.sha256}
            connection.execute(sql.record_migration, values)
    except psycopg.Error as error:
        where = ""
        if error.diag.statement_position:
            head = migration.text.decode()[: int(error.diag.statement_position) - 1]
            where = f":{head.count(chr(10)) + 1}"
        raise MigrationError(f"{migration.label}.sql{where}: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m dispatcher.db.migrate", description="The schema that the migrations make."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--dump", action="store_true", help="print the schema")
    what.add_argument("--check", action="store_true", help="fail when dispatcher/db/schema.sql differs from it")
    parser.add_argument("--conninfo", help="dump this database; by default a fresh one, on a server of its own")
    chosen = parser.parse_args(arguments)
    schema = dump_schema(chosen.conninfo) if chosen.conninfo else _schema_of_migrations()
    if chosen.dump:
        sys.stdout.write(schema)
        return 0
    written = importlib.resources.files("dispatcher.db") / "schema.sql"
    difference = schema_difference(written.read_text(encoding="utf-8") if written.is_file() else "", schema)
    if difference:
        sys.stderr.write(f"{difference}dispatcher/db/schema.sql is not what the migrations make: write --dump to it\n")
    return 1 if difference else 0


def _schema_of_migrations() -> str:
    from kernel.embedded_postgres import EmbeddedPostgres  # only a developer's command needs the server's package

    with tempfile.TemporaryDirectory(prefix="trace-schema-") as folder, EmbeddedPostgres(Path(folder)) as server:
        migrate(server.conninfo())
        return dump_schema(server.conninfo())


if __name__ == "__main__":
    sys.exit(main())
