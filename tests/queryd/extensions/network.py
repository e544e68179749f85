"""`network.py`: runs texts on a DuckDB that has httpfs. Lines of JSON: a text comes in, its error goes out."""

import importlib.resources
import json
import os
import sys
import tempfile

import duckdb


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    package = importlib.resources.files("duckdb_extension_httpfs")
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
            connection.execute(f"load '{package}/extensions/v{duckdb.__version__}/httpfs.duckdb_extension'")
            connection.execute(f"set extension_directory = '{folder}'")
            connection.execute("set http_timeout = 2; set http_retries = 0")
            try:
                connection.execute(json.loads(line)).fetchall()
                error = ""
            except Exception as failure:  # noqa: BLE001 - whatever it is, the server has heard of it or not
                error = str(failure)
        print(json.dumps(error), file=answers, flush=True)


if __name__ == "__main__":
    main()
