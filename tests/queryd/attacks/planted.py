"""What an attack may find and spoil: a folder with secrets and canaries, and an engine with things of others.

Nothing here is locked: it is DuckDB as anyone gets it. The secret stands in no attack's text.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

SECRET = "57f3c0de of others"
# A variable of the environment that the process of the engine has from its start.
VARIABLE = "TRACE_ATTACKED"

_THINGS_OF_OTHERS = """
set home_directory = '{folder}';
set temp_directory = '{folder}/temporary';
set extension_directory = '{folder}/none';
set custom_extension_repository = '{folder}/none';
set autoinstall_extension_repository = '{folder}/none';
set variable kept = '{secret}';
create table plain as select 1 as x;
comment on table plain is '{secret}';
create table keyed (a integer primary key, b varchar default '{secret}', check (b <> '{secret} '));
insert into keyed values (1, 'a');
create index an_index on keyed (b);
comment on index an_index is '{secret}';
create view named as from read_parquet('{folder}/store/data/named/a.parquet');
create view others as select '{secret}' as a;
create schema private;
create table private.other (a varchar default '{secret}');
insert into private.other default values;
create temp table hidden as select '{secret}' as a;
create macro macro_of_others(a) as a || '{secret}';
create macro table_macro_of_others() as table select '{secret}' as a;
create type mood as enum ('{secret}');
create sequence counter;
comment on sequence counter is '{secret}';
create secret kept (type http, bearer_token 'x', scope 'https://example.invalid/{secret}');
attach ':memory:' as spare;
attach '{folder}/kept.db' as archive (read_only);
create table spare.main.kept as select '{secret}' as a;
prepare others_statement as select '{secret}' as a;
prepare others_parameters as select '{secret}' || $1 as a;
prepare others_insert as insert into plain values (2);
call enable_logging('QueryLog');
select '{secret}' as a;
"""
_STATE = (
    "from duckdb_settings() select name, value where name not in ('enable_logging')",
    "from duckdb_variables() select name, value::varchar",
    "from duckdb_secrets() select name, type, scope",
    "from duckdb_databases() select database_name, path where not internal",
    "from duckdb_schemas() select database_name, schema_name where not internal",
    "from duckdb_tables() select database_name, schema_name, table_name, sql, comment where not internal",
    "from duckdb_columns() select database_name, table_name, column_name, comment where not internal",
    "from duckdb_views() select database_name, schema_name, view_name, sql where not internal",
    "from duckdb_indexes() select index_name, sql",
    "from duckdb_functions() select function_name, macro_definition where not internal",
    "from duckdb_types() select type_name, labels where not internal",
    "from duckdb_sequences() select sequence_name, last_value",
    "from duckdb_prepared_statements() select name",
    "from duckdb_extensions() select extension_name where loaded",
)
_ROWS = ("memory.main.plain", "memory.main.keyed", "spare.main.kept")


def plant(folder: Path) -> None:
    """Fills a new folder."""
    folder.mkdir(parents=True)
    table = pa.table({"a": [SECRET], SECRET: [1]}).replace_schema_metadata({"kept": SECRET})
    named = pa.table({"x": [1]})
    for name in ("secret.csv", "SECRET.csv", "recurring.csv", "RECURRING.csv", "\u212a.csv", "Ä.csv", "secret.tsv"):
        (folder / name).write_text(f"a,{SECRET}\n{SECRET},1\n")
    for name in ("secret.txt", f"{SECRET}.txt"):
        (folder / name).write_text(SECRET)
    for name in ("secret.json", "secret.ndjson"):
        (folder / name).write_text(json.dumps({"a": SECRET}) + "\n")
    (folder / "sub.folder").mkdir()
    (folder / "sub.folder" / "secret.csv").write_text(f"a\n{SECRET}\n")
    (folder / "numbers.csv").write_text("x\n5\n")
    (folder / "canary.csv").write_text("a\nunchanged\n")
    pq.write_table(named, folder / "canary.parquet")
    pq.write_table(table, folder / "secret.parquet")
    for place, content in (("named/a", named), ("other/secret", table)):
        path = folder / "store" / "data" / f"{place}.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(content, path)
    (folder / "made_up.duckdb_extension").write_text("no code")
    (folder / "importable").mkdir()
    (folder / "importable" / "schema.sql").write_text("create table imported (a integer);")
    (folder / "importable" / "load.sql").write_text("")
    for name in ("secret.db", "kept.db"):
        with duckdb.connect(folder / name) as made:
            made.execute("create table t as select $1 as a", [SECRET])


@contextmanager
def engine(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A plain engine with things of others in it."""
    with duckdb.connect(config={"custom_user_agent": SECRET}) as connection:
        for statement in _THINGS_OF_OTHERS.format(folder=folder, secret=SECRET).strip().split(";\n"):
            connection.execute(statement)
        yield connection


def state(connection: duckdb.DuckDBPyConnection, folder: Path) -> dict[str, str]:
    """Everything that an attack may change: files by their digest, and what the engine says of itself."""
    found = {text: str(sorted(map(str, connection.execute(text).fetchall()))) for text in _STATE}
    for name in _ROWS:
        try:
            found[name] = str(sorted(connection.execute(f"from {name}").fetchall()))
        except duckdb.Error as error:
            found[name] = type(error).__name__
    return found | contents(folder)


def contents(folder: Path) -> dict[str, str]:
    """The digests of all files, by their paths below the folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
