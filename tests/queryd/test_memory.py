"""What a cell may take of memory is what it uses of it, however it was started, and no more."""

from pathlib import Path

import pytest

from queryd.engine.messages import CellLimits
from queryd.engine.sandbox import Sandbox
from tests.queryd.forks import said_by

# Twice as much as it may take, in the order of a column that is computed.
_SORTED = """
import pyarrow.compute as pc
wide = "i, repeat('x', 100) || i as a, repeat('y', 100) || i as b, md5(i::varchar) as c"
sql = f"select hash(i) as h, {wide} from range(2_000_000) t(i) order by h"
last, total, count, in_order = 0, 0, 0, True
for batch in connection.cursor().sql(sql).to_arrow_reader(32_768):
    hashes = batch["h"]
    in_order &= last <= hashes[0].as_py() and pc.all(pc.less_equal(hashes[:-1], hashes[1:])).as_py()
    last, total, count = hashes[-1].as_py(), total + pc.sum(batch["i"]).as_py(), count + batch.num_rows
print(count, total, in_order)
"""
_FUNCTIONS = """
import duckdb
try:
    print(connection.execute("select length(repeat('x', 3_000_000_000))").fetchall())
except (duckdb.OutOfMemoryException, MemoryError):
    print("refused")
"""


@pytest.fixture
def limits() -> CellLimits:
    return CellLimits(memory_bytes=512 << 20, threads=2, scratch_bytes=4 << 30)


def test_a_sort_of_more_than_fits_spills_and_answers(sandbox: Sandbox, cells: Path) -> None:
    """The engine gives back what it has spilled, so its process may have as much again."""
    assert said_by(sandbox, cells, _SORTED) == "2000000 1999999000000 True"


def test_what_the_engine_does_not_count_is_bounded_all_the_same(sandbox: Sandbox, cells: Path) -> None:
    assert said_by(sandbox, cells, _FUNCTIONS) == "refused"
