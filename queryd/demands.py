"""What virtual datasets demand of the rows that they read: their own WHERE, and what is demanded of their rows."""

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from kernel.dataset_sql import folded
from queryd.outputs import Node
from queryd.terms import Terms, mentions

Demands = Mapping[str, Sequence[Terms]]
"""By dataset: what each mention of it demands of rows."""

_MOST = 1_000
"""Mentions of one dataset. Of virtual ones upon virtual ones that read others twice each there may be any number."""


def passed_on(named: Demands, statements: Mapping[str, Node], known: Mapping[str, str]) -> Demands:
    """All mentions of every dataset, by its id, where `named` has those of the text that is run.

    `statements` are those of the virtual datasets, parsed, by id; `known` has the ids of all datasets by their names,
    folded. Nothing where it is not known what a virtual one reads: then every row may count.
    """
    reads: dict[str, set[str]] = {}
    for dataset_id, statement in statements.items():
        own = _common_tables(statement)
        names = {folded(".".join(path)) for path in mentions(statement, {})}
        if not names <= known.keys() | own:
            return {}
        reads[dataset_id] = {known[name] for name in names & known.keys()}
    readers = {dataset_id: {other for other in reads if dataset_id in reads[other]} for dataset_id in reads}
    found = {dataset_id: list(terms) for dataset_id, terms in named.items()}
    try:
        for dataset_id in TopologicalSorter(readers).static_order():
            for demanded in dict.fromkeys(found.get(dataset_id, ())):
                for path, terms in mentions(statements[dataset_id], {}, demanded).items():
                    if folded(".".join(path)) in known:
                        found.setdefault(known[folded(".".join(path))], []).extend(terms)
            if any(len(terms) > _MOST for terms in found.values()):
                return {}
    except CycleError:  # of names that common table expressions have, too
        return {}
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
