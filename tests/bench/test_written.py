"""The rows of a transaction, as the benches count them."""

import psycopg

from bench.stack import Database
from bench.written import RowsWritten

ROWS = 700


def _connected(conninfo: str) -> Database:
    return psycopg.connect(conninfo, autocommit=True)


def _written(conninfo: str, *transactions: list[str], interval: float = 60.0) -> tuple[int, str]:
    """Rows of the largest, and what they are of."""
    with _connected(conninfo) as setup:
        setup.execute("create table one (id int primary key, value text)")
        setup.execute("create table two (id int primary key, value text)")
        setup.execute("insert into two select n, '' from generate_series(1, 10) n")
        setup.execute("checkpoint")
    with RowsWritten(lambda: _connected(conninfo), interval) as written, _connected(conninfo) as connection:
        for statements in transactions:
            with connection.transaction():
                for statement in statements:
                    connection.execute(statement)
    return written.largest.rows, str(written.largest)


def test_inserts_updates_and_deletes_count_whatever_writes_over_them(empty_database: str) -> None:
    insert = ["insert into one select n, '' from generate_series(1, 700) n"]
    change = ["update one set value = 'x'", "delete from one where id <= 5", "update two set value = 'y' where id < 4"]
    assert _written(empty_database, insert, change, ["delete from one"]) == (
        ROWS + 5 + 3,
        f"{ROWS + 5} of one, 3 of two",
    )


def test_rows_that_are_only_locked_and_long_values_beside_a_row_do_not_count(empty_database: str) -> None:
    lock = ["select from two for update", "update two set value = repeat(md5(id::text), 10_000) where id = 1"]
    assert _written(empty_database, lock) == (1, "1 of two")


def test_rows_of_savepoints_are_their_transactions(empty_database: str) -> None:
    parts = [
        "savepoint a",
        "insert into two values (100, '')",
        "release savepoint a",
        "savepoint b",
        "insert into two values (101, '')",
        "insert into one values (1, '')",
    ]
    assert _written(empty_database, ["insert into one values (2, '')", *parts]) == (4, "2 of one, 2 of two")


def test_what_is_read_in_parts_is_counted_once(empty_database: str) -> None:
    one_by_one = ["insert into one select count(*), '' from one"] * ROWS
    assert _written(empty_database, one_by_one, interval=0.001)[0] == ROWS


def test_copied_rows_count_one_by_one(empty_database: str) -> None:
    with _connected(empty_database) as connection:
        connection.execute("create table one (id int)")
        with RowsWritten(lambda: _connected(empty_database), 60.0) as written:
            _copy(connection)
    assert written.largest.tables == {"one": ROWS}


def _copy(connection: Database) -> None:
    with connection.cursor().copy("copy one from stdin") as copy:
        for number in range(ROWS):
            copy.write_row((number,))
