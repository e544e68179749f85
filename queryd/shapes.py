"""The nodes of DuckDB's parse trees that a query may consist of, each with all the fields that it may have.

Written from the trees of DuckDB 2.0.0 (`json_serialize_sql`). A node or a field that a later engine adds is unknown to
the gate (queryd/gate.py) until somebody has read what it does and put it here.
"""

_PLACE = frozenset({"query_location", "query_location_length"})
_EXPRESSION = _PLACE | {"class", "type", "alias"}
_TABLE = _PLACE | {"type", "alias", "sample"}
_QUERY = frozenset({"type", "modifiers", "cte_map"})
_CALL = _EXPRESSION | {"function_name", "schema", "catalog", "qualified_name", "arguments", "distinct"}

# Query nodes, relations and modifiers by `type`; expressions by `class`. Each with all the fields that it may have.
KNOWN: dict[str, frozenset[str]] = {
    # query nodes
    "SELECT_NODE": _QUERY
    | {"select_list", "from_table", "where_clause", "group_expressions", "group_sets", "aggregate_handling"}
    | {"having", "sample", "qualify"},
    "SET_OPERATION_NODE": _QUERY | {"setop_type", "left", "right", "setop_all", "children"},
    "RECURSIVE_CTE_NODE": _QUERY | {"cte_name", "union_all", "left", "right", "aliases", "key_targets"},
    # relations
    "BASE_TABLE": _TABLE
    | {"schema_name", "table_name", "catalog_name", "column_name_alias", "at_clause", "qualified_name"},
    "SUBQUERY_TABLE": _TABLE | {"subquery", "column_name_alias"},
    "JOIN": _TABLE
    | {"left", "right", "condition", "join_type", "ref_type", "using_columns", "delim_flipped", "is_implicit"}
    | {"duplicate_eliminated_columns", "ranking_expression", "nearest_count", "nearest_order_type", "nearest_approx"},
    "TABLE_FUNCTION": _TABLE | {"function", "column_name_alias", "with_ordinality"},
    "EXPRESSION_LIST": _TABLE | {"expected_names", "expected_types", "values"},
    "EMPTY": _TABLE,
    "PIVOT": _TABLE
    | {"source", "aggregates", "unpivot_names", "pivots", "groups", "column_name_alias", "include_nulls"},
    # modifiers
    "LIMIT_MODIFIER": frozenset({"type", "limit", "offset", "limit_type"}),
    "ORDER_MODIFIER": frozenset({"type", "orders"}),
    "DISTINCT_MODIFIER": frozenset({"type", "distinct_on_targets"}),
    "ORDER_DEFAULT": frozenset({"type", "null_order", "expression"}),
    "ASCENDING": frozenset({"type", "null_order", "expression"}),
    "DESCENDING": frozenset({"type", "null_order", "expression"}),
    # expressions
    "BETWEEN": _EXPRESSION | {"input", "lower", "upper"},
    "CASE": _EXPRESSION | {"case_checks", "else_expr"},
    "CAST": _EXPRESSION | {"child", "try_cast", "type_expr"},
    "COLLATE": _EXPRESSION | {"child", "collation"},
    "COLUMN_REF": _EXPRESSION | {"column_names"},
    "COMPARISON": _EXPRESSION | {"left", "right"},
    "CONJUNCTION": _EXPRESSION | {"children"},
    "CONSTANT": _EXPRESSION | {"literal"},
    "FUNCTION": _CALL | {"filter", "order_bys", "is_operator", "export_state"},
    "LAMBDA": _EXPRESSION | {"lhs", "expr", "syntax_type"},
    "OPERATOR": _EXPRESSION | {"children"},
    "PARAMETER": _EXPRESSION | {"identifier"},
    "POSITIONAL_REFERENCE": _EXPRESSION | {"index"},
    "STAR": _EXPRESSION
    | {"relation_name", "exclude_list", "replace_list", "columns", "expr", "qualified_exclude_list", "rename_list"},
    "SUBQUERY": _EXPRESSION | {"subquery_type", "subquery", "child", "comparison_type"},
    "TYPE": _EXPRESSION | {"catalog", "schema", "type_name", "children", "qualified_name"},
    "WINDOW": _CALL
    | {"partitions", "orders", "ignore_nulls", "has_ignore_nulls", "filter_expr", "exclude_clause", "arg_orders"}
    | {"start", "end", "start_expr", "end_expr", "offset_expr", "default_expr"},
}
QUERY_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE"})
OPERATORS = frozenset(
    {
        *("ARRAY_CONSTRUCTOR", "ARRAY_EXTRACT", "ARRAY_SLICE", "STRUCT_EXTRACT", "COMPARE_IN", "COMPARE_NOT_IN"),
        *("GROUPING_FUNCTION", "OPERATOR_COALESCE", "OPERATOR_NULLIF", "OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"),
        *("OPERATOR_NOT", "OPERATOR_TRY", "OPERATOR_UNPACK"),
    }
)
# Parts of nodes that carry no type of their own: one set of fields each.
PARTS = frozenset(
    {
        frozenset({"map"}),
        frozenset({"key", "value"}),
        frozenset({"aliases", "materialized", "key_targets", "payload_aggregates", "query_node"}),
        frozenset({"node", "named_param_map"}),
        frozenset({"expression", "name"}),
        frozenset({"kind", "text"}),
        frozenset({"path"}),
        frozenset({"when_expr", "then_expr"}),
        frozenset({"alias", "star_expr", "values"}),
        frozenset({"entries", "pivot_enum", "pivot_expressions", "unpivot_names"}),
        frozenset({"sample_size", "is_percentage", "method", "seed", "repeatable", "sample_rate"}),
        frozenset({"type", "is_null", "value"}),
        frozenset({"id", "type_info"}),
        frozenset({"catalog", "schema", "table", "column"}),
    }
)
