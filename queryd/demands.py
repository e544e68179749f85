"""What virtual datasets demand of the rows that they read: their own WHERE, and what is demanded of their rows."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter

from kernel.dataset_sql import folded
from queryd.outputs import Node
from queryd.set_operations import Columns, Relations, answered_columns
from queryd.terms import NOTHING_KNOWN, Terms, mentions

Demands = Mapping[str, Sequence[Terms]]
"""By dataset: what each mention of it demands of rows."""

_MOST = 1_000
"""Mentions of one dataset. Of virtual ones upon virtual ones that read others twice each there may be any number."""


def passed_on(
    named: Demands, statements: Mapping[str, Node], known: Mapping[str, str], columns: Relations = NOTHING_KNOWN
) -> Demands:
    """All mentions of every dataset, by its id, where `named` has those of the text that is run.

    `statements` are those of the virtual datasets, parsed, by id; `known` has the ids of all datasets by their names,
    folded; `columns` those of the stored ones, by id. Nothing where it is not known what a virtual one reads: then
    every row may count.
    """
    reads: dict[str, set[str]] = {}
    hidden: dict[str, set[str]] = {}
    for dataset_id, statement in statements.items():
        hidden[dataset_id] = own = _common_tables(statement)
        names = {folded(".".join(path)) for path in mentions(statement, {})}
        if not names <= known.keys() | own:
            return {}
        reads[dataset_id] = {known[name] for name in names & known.keys()}
    readers = {dataset_id: {other for other in reads if dataset_id in reads[other]} for dataset_id in reads}
    found = {dataset_id: list(terms) for dataset_id, terms in named.items()}
    try:
        readers_first = list(TopologicalSorter(readers).static_order())
        relations = _relations(readers_first, statements, known, hidden, columns)
        for dataset_id in readers_first:
            for demanded in dict.fromkeys(found.get(dataset_id, ())):
                for path, terms in mentions(statements[dataset_id], {}, demanded, relations[dataset_id]).items():
                    if folded(".".join(path)) in known:
                        found.setdefault(known[folded(".".join(path))], []).extend(terms)
            if any(len(terms) > _MOST for terms in found.values()):
                return {}
    except CycleError:  # of names that common table expressions have, too
        return {}
    return found


def _relations(
    readers_first: Sequence[str],
    statements: Mapping[str, Node],
    known: Mapping[str, str],
    hidden: Mapping[str, Collection[str]],
    columns: Mapping[str, Columns],
) -> Mapping[str, Relations]:
    """What is known of the relations that each virtual dataset reads; `hidden` are the names that mean others there."""
    found: dict[str, Relations] = {}
    all_columns = dict(columns)
    for dataset_id in reversed(readers_first):
        names = {
            name: other for name, other in known.items() if other in all_columns and name not in hidden[dataset_id]
        }
        found[dataset_id] = {name: all_columns[other] for name, other in names.items()}
        answered = answered_columns(statements[dataset_id]["node"], found[dataset_id])
        if answered is not None:
            # Not their order: a declaration may give them another one.
            all_columns[dataset_id] = replace(answered, order=())
    return found


def _common_tables(value: object) -> set[str]:
    """The names of all common table expressions below."""
    if isinstance(value, list):
        return set().union(*map(_common_tables, value))
    if not isinstance(value, dict):
        return set()
    own = {folded(str(entry["key"])) for entry in (value.get("cte_map") or {}).get("map") or ()}
    recursive = {folded(str(value["cte_name"]))} if value.get("cte_name") else set()
    return own.union(recursive, *map(_common_tables, value.values()))
