"""The corpus: one YAML file for each class of attacks, and what it means to succeed.

A text may hold `@folder@` and `@name@` (of the planted folder), `@port@` (of a server that hears of connections),
`@serialized@` (a statement as JSON) and `@word*1000@` (the word a thousand times).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

_HERE = Path(__file__).parent
_REPEATED = re.compile(r"@([^@]+?)\*(\d+)@")
SERIALIZED = (
    '{"error":false,"statements":[{"node":{"type":"SELECT_NODE","modifiers":[],"cte_map":{"map":[]},"select_list":'
    '[{"class":"FUNCTION","type":"FUNCTION","alias":"","query_location":7,"function_name":"current_setting","schema":"",'
    '"arguments":[{"name":"","expression":{"class":"CONSTANT","type":"VALUE_CONSTANT","alias":"","query_location":19,'
    '"literal":{"kind":"STRING","text":"custom_user_agent"}}}],"filter":null,"order_bys":{"type":"ORDER_MODIFIER","orders":[]},'
    '"distinct":false,"is_operator":false,"export_state":false,"catalog":"","qualified_name":{"path":["current_setting"]}}],'
    '"from_table":{"type":"EMPTY","alias":"","sample":null,"query_location":18446744073709551615},"where_clause":null,'
    '"group_expressions":[],"group_sets":[],"aggregate_handling":"STANDARD_HANDLING","having":null,"sample":null,'
    '"qualify":null},"named_param_map":[]}]}'
)

# What an attack is after, by the word that the files use.
SUCCESSES = {
    "tells": "the answer, or the error, holds what was planted as a secret, or a path that the text does not have",
    "changes": "a file, a relation, a setting, a variable or a statement is another one afterwards",
    "answers": "there is an answer, which is about the engine or the machine and not about data",
    "reaches": "a server hears of a connection",
    "reaches_for_an_extension": "the engine goes and looks for code to load",
    "exceeds": "it takes more than the bound of memory, time, rows or disk that it is given",
}


@dataclass(frozen=True, slots=True)
class Attack:
    """`kind` is its class, the file's name; `values` are those of parameters; `before` is run first, by another."""

    kind: str
    sql: str
    succeeds_if: str
    values: tuple[str | int, ...] = ()
    before: str = ""

    def filled(self, folder: Path, port: int = 0) -> "Attack":
        """The attack on this folder and this server."""
        words = {"@folder@": str(folder), "@name@": folder.name, "@port@": str(port), "@serialized@": SERIALIZED}
        values = tuple(_filled(value, words) if isinstance(value, str) else value for value in self.values)
        return replace(self, sql=_filled(self.sql, words), values=values)


def _filled(text: str, words: dict[str, str]) -> str:
    for word, meant in words.items():
        text = text.replace(word, meant)
    return _REPEATED.sub(lambda match: match[1] * int(match[2]), text)


def attacks(*kinds: str) -> list[Attack]:
    """All, or those of these classes."""
    return [attack for kind in kinds or classes() for attack in _read(kind)]


def worth_mutating(folder: Path) -> list[str]:
    """Texts of attacks on this folder, but for those that only take much: they are ordinary SQL, which may pass."""
    return [attack.filled(folder, port=1).sql for attack in attacks() if attack.succeeds_if != "exceeds"]


def classes() -> list[str]:
    return sorted(path.stem for path in _HERE.glob("*.yaml"))


def _read(kind: str) -> Iterator[Attack]:
    document: dict[str, Any] = yaml.safe_load((_HERE / f"{kind}.yaml").read_text())
    for entry in document["attacks"]:
        fields = entry if isinstance(entry, dict) else {"sql": entry}
        attack = Attack(kind, **{"succeeds_if": document["succeeds_if"], **fields})
        yield replace(attack, values=tuple(attack.values))
