"""Reading CSV and Parquet, plain and gzip: types, nulls, faults, and memory that does not grow with the file."""

import gzip
import subprocess
import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from textwrap import dedent

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tracesdk import OperatorError
from wrapper.operators.row_files import open_rows

_SCHEMA = {"number": "int64", "difficulty": "decimal(38,0)", "miner": "string", "at": "timestamp", "fee": "double"}
_CSV = (
    "miner,number,ignored,difficulty,at,fee\n"
    'a,1,x,12345678901234567890123456789,1446832865,1.5\n"b,\nc",2,x,7,,\n,3,x,,1446832866,-2\n'
)


def table(path: Path, schema: Mapping[str, str]) -> pa.Table:
    with open_rows(path, schema) as file:
        return pa.Table.from_batches(list(file.batches))


@pytest.mark.parametrize("packed", [False, True])
def test_a_csv_is_read_by_its_declared_columns_in_its_own_order(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "rows"
    path.write_bytes(gzip.compress(_CSV[:60].encode()) + gzip.compress(_CSV[60:].encode()) if packed else _CSV.encode())
    rows = table(path, _SCHEMA)
    assert rows.column_names == ["miner", "number", "difficulty", "at", "fee"]
    assert rows["difficulty"].to_pylist() == [Decimal("12345678901234567890123456789"), Decimal(7), None]
    assert rows["miner"].to_pylist() == ["a", "b,\nc", ""], "an empty text is a text, not null"
    assert rows["fee"].to_pylist() == [1.5, None, -2.0]
    assert rows["at"].cast(pa.int64()).to_pylist() == [1446832865_000000, None, 1446832866_000000]


def test_times_may_be_written_with_and_without_a_zone(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("at\n2015-11-06\n2015-11-06T18:01:05\n2015-11-06 18:01:05.25Z\n2015-11-06T18:01:05+01:00\n")
    micros = table(path, {"at": "timestamp"})["at"].cast(pa.int64()).to_pylist()
    assert micros == [1446768000_000000, 1446832865_000000, 1446832865_250000, 1446829265_000000]


@pytest.mark.parametrize("packed", [False, True])
def test_parquet_is_known_by_its_content(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "rows.csv"
    original = pa.table({"number": [1, 2], "difficulty": ["12345678901234567890123", None], "other": [1, 2]})
    pq.write_table(original, path)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    with open_rows(path, {"number": "int64", "difficulty": "decimal(38,0)"}) as file:
        assert file.row_count == 2
        rows = pa.Table.from_batches(list(file.batches))
    assert rows["difficulty"].to_pylist() == [Decimal("12345678901234567890123"), None]
    assert rows.column_names == ["number", "difficulty"]


@pytest.mark.parametrize(
    ("text", "schema", "said"),
    [
        ("number\n1\nx\n", {"number": "int64"}, "'x'"),
        ("number\n1\n1.5\n", {"number": "int64"}, "1.5"),
        ("number\n1\n", {"number": "int64", "gas": "int64"}, "no column 'gas'; it has number"),
        ("number\n1\n", {}, "declare the columns"),
        ("number\n1\n", {"number": "list<int64>"}, "holds no lists"),
        ("at\nyesterday\n", {"at": "timestamp"}, "yesterday"),
        ("number,gas\n1,2\n3\n", {"number": "int64"}, "columns"),
    ],
)
def test_faults_of_a_csv_are_told(tmp_path: Path, text: str, schema: dict[str, str], said: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(OperatorError, match=said):
        table(path, schema)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"no file .*rows\.csv"):
        table(tmp_path / "rows.csv", _SCHEMA)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """In a process of its own, since a peak never falls: a file ten times as large adds next to nothing to it."""
    code = """
        import gzip, resource, sys
        from pathlib import Path
        from wrapper.operators.row_files import open_rows

        def peak(rows):
            path = Path(sys.argv[1])
            with gzip.open(path, "wt", compresslevel=1) as file:
                file.write("number,text\\n")
                for start in range(0, rows, 1000):
                    file.write("".join(f"{number},{'x' * 90}\\n" for number in range(start, start + 1000)))
            with open_rows(path, {"number": "int64", "text": "string"}) as file:
                assert sum(batch.num_rows for batch in file.batches) == rows
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

        print(peak(100_000), peak(1_000_000))
    """
    command = [sys.executable, "-c", dedent(code), str(tmp_path / "rows.csv.gz")]
    small, large = map(int, subprocess.run(command, capture_output=True, check=True, timeout=100).stdout.split())
    assert large - small < 30, f"{small} MiB, then {large} MiB; the file has 100 MB"
