"""`tpc.py FOLDER NAME SCALE`: tables of `tpch` or `tpcds` as Parquet files, queries by number as queries.json."""

import importlib.resources
import json
import sys
from pathlib import Path

import duckdb

_GENERATORS = {"tpch": "dbgen", "tpcds": "dsdgen"}


def main(folder: Path, name: str, scale: float) -> None:
    package = importlib.resources.files(f"duckdb_extension_{name}")
    connection = duckdb.connect()
    connection.execute("set threads = 1")
    connection.execute(f"load '{package}/extensions/v{duckdb.__version__}/{name}.duckdb_extension'")
    connection.execute(f"call {_GENERATORS[name]}(sf = {scale})")
    for (table,) in connection.execute("select table_name from duckdb_tables()").fetchall():
        connection.execute(f"copy {table} to '{folder / table}.parquet' (format parquet)")
    queries = connection.execute(f"select query_nr, query from {name}_queries() order by query_nr").fetchall()  # noqa: S608
    (folder / "queries.json").write_text(json.dumps(dict(queries)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
