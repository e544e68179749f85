"""Writes docs/reference/sql.md from the lists of the gate: `python -m tools.sql_page FOLDER`."""

import sys
from collections.abc import Mapping
from pathlib import Path

import duckdb

from queryd.allowed import AGGREGATES, OPERATORS, SCALARS, TABLE_FUNCTIONS, TYPES, WINDOWS
from queryd.shapes import OPERATORS as EXPRESSION_OPERATORS

OUTPUT = Path("docs/reference/sql.md")

_OPENING = f"""\
<!-- Generated from queryd/shapes.py and queryd/allowed.py by `make generate`. Do not edit. -->
# SQL: what a query may be

A query is one SELECT in the dialect of DuckDB {duckdb.__version__}, and it runs as it is written: nothing of
it is changed. Before it runs it is held against the lists below, on DuckDB's own parse tree. What is not in them is
refused (`SQL_REFUSED`), with the line and the column at which it stands: a list of what is forbidden would be open for
whatever a later engine adds. The queries of TPC-H and TPC-DS pass as they are.

- **Datasets** are read by name: `"eth.blocks"`. The bare `eth.blocks` is allowed where it can mean one dataset only,
  and refused with the reason where not (`NAME_AMBIGUOUS`). Names ignore the case of ASCII letters. No path, address,
  table of the engine or other database can be read. The name of a common table expression wins, as in DuckDB.
- **Values** come as parameters: `?`, `$1` to `$1000`, or `$name`.
- **Types** of columns and of what SQL makes of them are in [types](types.md), integers of 256 bits too.
- **A dataset without files** (`storage: none`) reads as one row for each scope: `first`, `last`, `unit_count`,
  `revision`; of partition keys `partition_key`, `revision`.
- **The state** that is read is fixed once, at the start: the present one, that of a deploy, or that of an earlier query
  (`--as-of`, `as_of`, `trace-as-of`); on wish once a watermark is reached (`--min-watermark`, `min_watermarks`,
  `trace-min-watermarks`).
- **The SQL of a virtual dataset** is held against the same lists.
- **Time, memory, rows and disk** are bounded for each query, whatever its SQL is: see [settings](settings.md) of
  queryd. So what only takes much is allowed, such as a join without a condition.
"""

# For each kind of node what people call it. A kind that is missing here, or is here in vain, fails a test.
CLAUSES = {
    "SELECT_NODE": "`SELECT`, also `FROM x` alone, `TABLE x`, `VALUES`, with `WHERE`, `GROUP BY` (also `ALL`, "
    "`ROLLUP`, `CUBE`, `GROUPING SETS`), `HAVING`, `QUALIFY`, `WINDOW`, `TABLESAMPLE`, and `WITH` of SELECTs",
    "SET_OPERATION_NODE": "`UNION`, `INTERSECT`, `EXCEPT`, with `ALL` and `BY NAME`",
    "RECURSIVE_CTE_NODE": "`WITH RECURSIVE`, also `USING KEY`, with `recurring.t` in its second half",
    "BASE_TABLE": "a dataset, or a common table expression",
    "SUBQUERY_TABLE": "a SELECT in `FROM`, also `LATERAL`",
    "JOIN": "joins: inner, outer, cross, semi, anti, natural, as-of, positional",
    "TABLE_FUNCTION": "a table function of the list below",
    "EXPRESSION_LIST": "`VALUES` in `FROM`",
    "EMPTY": "a SELECT without `FROM`",
    "PIVOT": "`PIVOT` and `UNPIVOT` in `FROM`; the statement `PIVOT` is refused, the statement `UNPIVOT` is not",
    "LIMIT_MODIFIER": "`LIMIT`, also in per cent, and `OFFSET`",
    "ORDER_MODIFIER": "`ORDER BY`, also `ALL`",
    "ORDER_DEFAULT": "an order without a direction",
    "ASCENDING": "`ASC`, `NULLS FIRST`, `NULLS LAST`",
    "DESCENDING": "`DESC`, `NULLS FIRST`, `NULLS LAST`",
    "DISTINCT_MODIFIER": "`DISTINCT`, `DISTINCT ON`",
}
EXPRESSIONS = {
    "BETWEEN": "`BETWEEN`",
    "CASE": "`CASE`",
    "CAST": "`CAST`, `TRY_CAST`, `::`",
    "COLLATE": "`COLLATE`",
    "COLUMN_REF": "columns, and fields of structs",
    "COMPARISON": "comparisons, also `IS DISTINCT FROM`",
    "CONJUNCTION": "`AND`, `OR`",
    "CONSTANT": "constants",
    "FUNCTION": "a function of the lists below, also after a constant or parentheses: `'a'.upper()`, `(x).upper()`",
    "LAMBDA": "lambdas: `lambda x: x + 1`",
    "OPERATOR": "`IN`, `IS NULL`, `NOT`, `COALESCE`, `NULLIF`, `TRY`, `GROUPING`, `[1, 2]`, `x[1]`, `x[1:2]`, "
    "`s.field`, `*COLUMNS(...)`",
    "PARAMETER": "parameters",
    "POSITIONAL_REFERENCE": "`#1`",
    "STAR": "`*`, with `EXCLUDE`, `REPLACE`, `RENAME`, `LIKE`; `COLUMNS(...)`",
    "SUBQUERY": "a SELECT as a value, `EXISTS`, `IN`, `ANY`, `ALL`, `ARRAY`",
    "TYPE": "a type of the list below",
    "WINDOW": "`OVER`, with frames, `EXCLUDE`, `FILTER`, `IGNORE NULLS`",
}

_INSTEAD = {
    "several statements, and all but SELECT": "one SELECT for each query",
    "`COPY`, `INSERT`, `UPDATE`, `DELETE` and the like, also in `WITH`": "datasets are written by jobs",
    "files and addresses, by `read_parquet` and its like or as names": "a dataset's name; a source brings files in",
    "`DESCRIBE`, `SHOW`, `SUMMARIZE`, tables of the engine, `information_schema`": "`tracectl dataset show`; Flight's "
    "catalogues",
    "`EXPLAIN`": "`tracectl query --explain`, `ExplainQuery`: all files count, the plan is of one of each dataset",
    "`SET`, `PRAGMA`, `current_setting`, variables": "parameters",
    "`AT (VERSION => ...)`": "`as_of` beside the query",
    "functions and types with a schema (`main.upper(x)`), methods of columns (`x.upper()`)": "`upper(x)`, "
    "`(x).upper()`",
    "`query(...)`, `query_table(...)`, and SQL or plans as data": "the SELECT itself",
}


def page() -> str:
    """All lists, each kind with its words."""
    return "\n".join(
        [
            _OPENING,
            "## Clauses\n",
            *_table("kind", CLAUSES),
            "## Expressions\n",
            *_table("kind", EXPRESSIONS),
            f"Of operators these: {_words(EXPRESSION_OPERATORS)}.\n",
            "## Table functions\n",
            f"{_words(TABLE_FUNCTIONS)}.\n",
            "## Functions\n",
            "They read nothing but their arguments. None waits, writes, or tells of the engine.\n",
            *(
                f"### {title}\n\n{_words(names.split())}.\n"
                for title, names in (
                    ("Of rows", SCALARS),
                    ("Aggregates", AGGREGATES),
                    ("Of windows", WINDOWS),
                    ("Operators", OPERATORS),
                )
            ),
            "## Types\n",
            f"{_words(TYPES)}.\n",
            "## What is refused, and what there is instead\n",
            *_table("refused", _INSTEAD, second="instead", code=False),
        ]
    )


def _table(first: str, rows: Mapping[str, str], second: str = "what it is", *, code: bool = True) -> list[str]:
    lines = [f"| {f'`{key}`' if code else key} | {words} |" for key, words in rows.items()]
    return [f"| {first} | {second} |", "|---|---|", *lines, ""]


def _words(names: object) -> str:
    assert isinstance(names, frozenset | list)  # noqa: S101 - what the callers have
    return ", ".join(f"`{name}`" for name in sorted(names))


def main(folder: str) -> None:
    """Write the page below `folder`, at its path in the tree."""
    target = Path(folder) / OUTPUT
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
