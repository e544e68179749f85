"""Migrations: once, in order, whole or not at all, and never behind the program's back."""

import concurrent.futures
import subprocess
import sys
from importlib.resources.abc import Traversable
from pathlib import Path

import psycopg
import pytest

from dispatcher.db.errors import MigrationError
from dispatcher.db.migrate import _LOCK, migrate, read_migrations
from dispatcher.db.schema import dump_schema, schema_difference
from kernel.embedded_postgres import EmbeddedPostgres


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_start.sql").write_text("create table a (id int primary key);\ncreate table b (id int);\n")
    (folder / "0002_more.sql").write_text("insert into a values (1);\nalter table b add column text text;\n")
    return folder


def _rows(conninfo: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(conninfo) as connection:
        return connection.execute(query).fetchall()


def _labels(conninfo: str, folder: Traversable) -> list[str]:
    return [migration.label for migration in migrate(conninfo, folder=folder)]


def test_they_are_applied_in_order_and_once(empty_database: str, folder: Path) -> None:
    assert _labels(empty_database, folder) == ["0001_start", "0002_more"]
    assert _labels(empty_database, folder) == []
    (folder / "0003_last.sql").write_text("drop table b;")
    assert _labels(empty_database, folder) == ["0003_last"]
    recorded = _rows(empty_database, "select number, name from schema_migration order by number")
    assert recorded == [(1, "start"), (2, "more"), (3, "last")]


def test_a_failing_one_leaves_nothing_and_names_its_line(empty_database: str, folder: Path) -> None:
    (folder / "0003_bad.sql").write_text("create table c (id int);\n\ncreate table d (id nothing);\n")
    with pytest.raises(MigrationError, match=r'0003_bad\.sql:3: type "nothing" does not exist'):
        migrate(empty_database, folder=folder)
    assert _rows(empty_database, "select to_regclass('c'), max(number) from schema_migration") == [(None, 2)]


def test_of_many_programs_one_migrates(empty_database: str, folder: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        done = list(threads.map(lambda _: _labels(empty_database, folder), range(8)))
    assert sorted(map(len, done)) == [0] * 7 + [2]


def test_the_wait_for_another_one_is_bounded(empty_database: str, folder: Path) -> None:
    with psycopg.connect(empty_database) as other:
        other.execute("select pg_advisory_lock(%s)", (_LOCK,))
        with pytest.raises(MigrationError, match="another process has been migrating"):
            migrate(empty_database, folder=folder, lock_timeout=0.05)


def test_an_edited_file_is_refused(empty_database: str, folder: Path) -> None:
    migrate(empty_database, folder=folder)
    (folder / "0001_start.sql").write_text("create table a (id bigint primary key);")
    (folder / "0003_last.sql").write_text("drop table b;")
    with pytest.raises(MigrationError, match="0001_start differs from what was applied"):
        migrate(empty_database, folder=folder)
    assert _rows(empty_database, "select max(number) from schema_migration") == [(2,)]


def test_a_database_ahead_of_the_program_is_refused(empty_database: str, folder: Path) -> None:
    migrate(empty_database, folder=folder)
    (folder / "0002_more.sql").unlink()
    with pytest.raises(MigrationError, match="it has 0002_more, the program knows up to 0001_start"):
        migrate(empty_database, folder=folder)


@pytest.mark.parametrize(
    ("name", "error"),
    [("0004_gap.sql", "0003 was expected"), ("0002_twice.sql", "0003 was expected"), ("3_short.sql", "NNNN_name")],
)
def test_numbers_have_no_gaps_and_no_doubles(folder: Path, name: str, error: str) -> None:
    (folder / name).write_text("select 1")
    with pytest.raises(MigrationError, match=error):
        read_migrations(folder)


def test_the_dump_depends_on_the_schema_alone(postgres: EmbeddedPostgres, empty_database: str, folder: Path) -> None:
    migrate(empty_database, folder=folder)
    first = dump_schema(empty_database)
    assert dump_schema(empty_database) == first
    assert "CREATE TABLE public.b (\n    id integer,\n    text text\n);" in first
    for noise in ("restrict", "Dumped", "SET ", "Owner", postgres.conninfo()):
        assert noise not in first
    with psycopg.connect(empty_database) as connection:
        connection.execute("create index b_id on b (id)")
    difference = schema_difference(first, dump_schema(empty_database))
    assert "+CREATE INDEX b_id ON public.b USING btree (id);" in difference.splitlines()
    assert schema_difference(first, first) == ""


def test_the_schema_file_is_what_the_migrations_make(database: str) -> None:
    command = [sys.executable, "-m", "dispatcher.db.migrate", "--check", "--conninfo", database]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
