"""The gate alone: what it passes, what it finds, and that its lists are those of the engine that is installed."""

import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from queryd import gate
from queryd.allowed import FUNCTIONS, TYPES
from queryd.gate import GateError, check
from tests.queryd import hostile

# Functions of the engine that are left out by their beginning, and one by one; queryd/allowed.py says why.
_LEFT_OUT_PREFIX = re.compile(
    r"(__internal|__between|__cast|collate_|icu_|pg_|has_|inet_|st_|json_copy_"
    r"|variant_(bytes|to_parquet|normalize|comparator|group))"
)
_LEFT_OUT = frozenset(
    """
    current_setting getvariable write_log parse_duckdb_log_message json_serialize_plan json_serialize_sql invoke
    json_deserialize_sql nextval currval setval txid_current current_connection_id current_query_id
    current_transaction_id current_query current_schemas in_search_path index_key stats vector_type
    constant_or_null create_sort_key combine finalize to_aggregate_state combine_aggr get_block_size sleep_ms
    make_type replace_type get_type remap_struct vertex_extract bitstring_byte_comparable timetz_byte_comparable
    hive_partition_component col_description obj_description format_type shobj_description map_to_pg_oid
    format_pg_type can_cast_implicitly array_to_string_comma_default
    """.split()  # noqa: SIM905
)
_ALLOWED_IN_SPITE = frozenset({"pg_typeof", "pg_size_pretty"})
_NOT_IN_THE_LIST_OF_THE_ENGINE = frozenset({"unnest"})  # the parser knows it by itself


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        yield opened


def _names(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[str, int, int]]:
    return [(name.dataset_id, name.line, name.column) for name in check(connection, sql).names]


def test_every_function_of_the_engine_is_either_allowed_or_left_out_by_name(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    rows = connection.execute(
        "select distinct lower(function_name) from duckdb_functions() where function_type in "
        "('scalar', 'aggregate', 'macro', 'window')"
    ).fetchall()
    engine = {name for (name,) in rows}
    left_out = {name for name in engine if _LEFT_OUT_PREFIX.match(name) or name in _LEFT_OUT} - _ALLOWED_IN_SPITE
    undecided = {name for name in engine if not name.startswith("is ")} - left_out - FUNCTIONS
    assert not undecided
    assert not FUNCTIONS - engine - _NOT_IN_THE_LIST_OF_THE_ENGINE
    assert not FUNCTIONS & left_out


def test_every_type_of_the_engine_is_either_allowed_or_left_out_by_name(connection: duckdb.DuckDBPyConnection) -> None:
    engine = {name.lower() for (name,) in connection.execute("select type_name from duckdb_types()").fetchall()}
    assert engine - TYPES == {"geometry", "type", "variant"}


@pytest.mark.parametrize("sql", Path(__file__).with_name("ordinary.sql").read_text().split("\n\n")[1:])
def test_ordinary_sql_passes(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    check(connection, sql)


def test_names_come_once_for_each_spelling_with_their_first_place(connection: duckdb.DuckDBPyConnection) -> None:
    sql = "select * -- ö\nfrom eth.blocks, \"eth.blocks\",\n  ETH.blocks b, eth.blocks c where exists (from 'ß.csv')"
    assert _names(connection, sql) == [
        ("eth.blocks", 2, 6),
        ("eth.blocks", 2, 18),
        ("ETH.blocks", 3, 3),
        ("ß.csv", 3, 49),
    ]


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("with t as (from a) from t", ["a"]),
        ("with t as (from t) from T", ["t"]),
        ("with t as (from a), u as (from t) from u", ["a"]),
        ("with u as (from t), t as (from a) from u, t", ["t", "a"]),
        ("with recursive t as (select 1 n union all select n + 1 from t) from t", []),
        ("with recursive t as (select n from t union all select n + 1 from t) from t", ["t"]),
        ("with t as (select 1) select (select 1 from b, t) from t order by (select 1 from c)", ["b", "c"]),
        ("select * from (with t as (select 1) from t) u, t", ["t"]),
        ("with t as (select 1) (with t as (from t) from t) union all from t", []),
        ("select * from a limit (select count(*) from b)", ["a", "b"]),
        ("select * from a join b on exists (from c where a.x = c.x)", ["a", "b", "c"]),
        ("with recursive t as (select 1 n union select n + 1 from recurring.T where n < 3) from t", []),
        ("with recursive t as (select 1 n union select n from (with t as (select 2) from recurring.t)) from t", []),
    ],
)
def test_names_follow_the_scope_of_common_table_expressions(
    connection: duckdb.DuckDBPyConnection, sql: str, names: list[str]
) -> None:
    """Held against the engine itself: where the gate says a name is a relation, the engine looks for one."""
    assert sorted(name for name, _, _ in _names(connection, sql)) == sorted(names)
    with duckdb.connect() as engine:
        for name in names:
            with pytest.raises(duckdb.Error):
                engine.execute(f"explain {sql}")
            engine.execute(f"create table {name} (a int, n int, x int)")
        engine.execute(f"explain {sql}")


@pytest.mark.parametrize(
    ("sql", "file"),
    [
        ("with csv as (select 1) from recurring.csv", "recurring.csv"),
        ("with recursive csv as (select 1 n union select n from csv) from csv, recurring.csv", "recurring.csv"),
        (
            "with recursive csv as (select 1 n union select n from csv), t as (from recurring.csv) from t",
            "recurring.csv",
        ),
        ('with "k.csv" as (select 1) from "\u212a.csv"', "\u212a.csv"),
        ('with "ä.csv" as (select 1) from "Ä.csv"', "Ä.csv"),
    ],
)
def test_what_the_engine_would_read_from_a_file_is_never_taken_for_a_common_table_expression(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str, file: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(file).write_text("a\nsecret\n")
    with duckdb.connect() as engine:
        assert "secret" in str(engine.sql(sql).fetchall())
    assert [name for name, _, _ in _names(connection, sql)] == [file]


def test_every_hostile_text_is_refused_or_names_what_no_dataset_is(connection: duckdb.DuckDBPyConnection) -> None:
    passed = []
    for text in hostile.ALL:
        try:
            names = {name.dataset_id for name in check(connection, text.format(file="/f.parquet", folder="/f")).names}
        except GateError:
            continue
        if names <= {"plain"}:
            passed.append(text)
    assert not passed


def test_a_tree_of_another_shape_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a later engine adds to its trees must not slip through."""
    node = {"type": "SELECT_NODE", "modifiers": [], "cte_map": {"map": []}}
    for tree in (
        {"node": {**node, "a_new_field": 1}, "named_param_map": []},
        {"node": {"type": "NEW_NODE"}, "named_param_map": []},
        {"node": {**node, "select_list": [{"class": "NEW", "type": "NEW"}]}, "named_param_map": []},
        {
            "node": {**node, "select_list": [{"class": "OPERATOR", "type": "NEW", "children": []}]},
            "named_param_map": [],
        },
        {"node": {**node, "from_table": {"type": "BASE_TABLE"}}, "named_param_map": []},
        {"node": {**node, "select_list": [{"new": 1}]}, "named_param_map": []},
        {"node": {"type": "SELECT_NODE"}, "named_param_map": []},
    ):
        monkeypatch.setattr(gate, "parsed", lambda connection, sql, tree=tree: tree)
        with pytest.raises(GateError) as caught, duckdb.connect() as connection:
            check(connection, "select 1")
        assert caught.value.kind == "refused"
