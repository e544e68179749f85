"""Attacks written in other ways: seeded, so that a run can be repeated. Nearly all still are SQL to the engine.

A mutant is an attack to which one to four of the ways below were applied. They change how it is written (case, spaces,
remarks, quotes, qualified names), where it stands (in a WITH, a subquery, a union, LATERAL, EXISTS, a second
statement), or join it with an honest text or another attack.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence

Way = Callable[["Mutator", str], str]

_TOKENS = re.compile(
    r"""(?P<text>e?'(?:[^']|'')*')|(?P<name>"(?:[^"]|"")*")|(?P<remark>--[^\n]*|/\*.*?\*/)|(?P<dollar>\$\w*\$.*?\$\w*\$)"""
    r"""|(?P<word>[A-Za-z_][\w]*)|(?P<space>\s+)|(?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)
_SPACES = (" ", "\t", "\n", "\r\n", "  ", "\u00a0", "\u2003", "\u3000", "\f", "/**/", "/* from */", "--;\n", "/*'*/")
_QUALIFIERS = ("main.", "system.main.", "memory.main.", "pg_catalog.", "temp.", '"main".', "MAIN.", "recurring.")
_LONGEST = 4_000  # of a text that is worth mutating


class Mutator:
    """Makes mutants of `attacks`; some are spliced into `honest` texts."""

    def __init__(self, seed: int, attacks: Sequence[str], honest: Sequence[str]) -> None:
        self.random = random.Random(seed)
        self.attacks = [text for text in attacks if len(text) <= _LONGEST]
        self.honest = list(honest)

    def mutants(self, count: int) -> Iterator[str]:
        """`count` of them, no two of a run alike."""
        seen: set[str] = set(self.attacks)
        while count:
            text = self.random.choice(self.attacks)
            for way in self.random.choices(WAYS, k=self.random.randint(1, 4)):
                text = way(self, text) or text
            if text not in seen and len(text) <= 4 * _LONGEST:
                seen.add(text)
                count -= 1
                yield text

    def attack(self) -> str:
        return _bare(self.random.choice(self.attacks))


def _bare(text: str) -> str:
    """Without the semicolon and the remark at its end, so that it can stand in parentheses."""
    return re.sub(r"(--[^\n]*|;|\s)+$", "", text)


def _by_token(change: Callable[[Mutator, str, str, str], str]) -> Way:
    """A way that changes tokens: given their kind, themselves and what follows."""

    def way(mutator: Mutator, text: str) -> str:
        tokens = [(str(match.lastgroup), match[0]) for match in _TOKENS.finditer(text)]
        after = [*(token for _, token in tokens[1:]), ""][: len(tokens)]
        return "".join(
            change(mutator, kind, token, following) for (kind, token), following in zip(tokens, after, strict=True)
        )

    return way


def _case(mutator: Mutator, kind: str, token: str, following: str) -> str:
    if kind not in ("word", "name"):
        return token
    return "".join(letter.upper() if mutator.random.random() < 0.4 else letter for letter in token)


def _spaces(mutator: Mutator, kind: str, token: str, following: str) -> str:
    return mutator.random.choice(_SPACES) if kind == "space" and mutator.random.random() < 0.5 else token


def _remarks(mutator: Mutator, kind: str, token: str, following: str) -> str:
    return token + ("/*)*/" if kind in ("word", "other") and token != "$" and mutator.random.random() < 0.15 else "")


def _quotes(mutator: Mutator, kind: str, token: str, following: str) -> str:
    return f'"{token}"' if kind == "word" and following == "(" and mutator.random.random() < 0.6 else token


def _qualified(mutator: Mutator, kind: str, token: str, following: str) -> str:
    called = kind in ("word", "name") and following == "("
    return mutator.random.choice(_QUALIFIERS) + token if called and mutator.random.random() < 0.6 else token


def _literals(mutator: Mutator, kind: str, token: str, following: str) -> str:
    if kind != "text" or not token.startswith("'") or mutator.random.random() < 0.5:
        return token
    inner = token[1:-1]
    middle = len(inner) // 2
    return mutator.random.choice(
        (
            f"$x${inner}$x$",
            f"('{inner[:middle]}' || '{inner[middle:]}')",
            f'"{inner}"',
            f"e{token}",
            "$1",
            f"cast({token} as varchar)",
            f"(select {token})",
        )
    )


def _damaged(mutator: Mutator, text: str) -> str:
    """One token is left out, doubled, or exchanged with another."""
    tokens = [match[0] for match in _TOKENS.finditer(text)]
    place, other = mutator.random.randrange(len(tokens)), mutator.random.randrange(len(tokens))
    kind = mutator.random.randrange(3)
    if kind == 0:
        del tokens[place]
    elif kind == 1:
        tokens.insert(place, tokens[other])
    else:
        tokens[place], tokens[other] = tokens[other], tokens[place]
    return "".join(tokens)


def _within(*patterns: str) -> Way:
    """Puts the text where `{}` stands in one of the patterns; `{other}` is another attack."""

    def way(mutator: Mutator, text: str) -> str:
        return mutator.random.choice(patterns).replace("{other}", mutator.attack()).replace("{}", _bare(text))

    return way


def _spliced(mutator: Mutator, text: str) -> str:
    """Something in parentheses of an honest text, or of another attack, becomes the text."""
    host = mutator.random.choice(mutator.honest if mutator.random.random() < 0.7 else mutator.attacks)
    places = [match.start() for match in re.finditer(r"\(", host)]
    if not places:
        return f"{_bare(host)} union all ({_bare(text)})"
    start = mutator.random.choice(places)
    depth = 0
    for end in range(start, len(host)):
        depth += {"(": 1, ")": -1}.get(host[end], 0)
        if depth == 0:
            break
    inner = mutator.random.choice(("({})", "((select 1 from ({}) m))", "((select count(*) from ({}) m))"))
    return host[:start] + inner.replace("{}", _bare(text)) + host[end + 1 :]


WAYS: tuple[Way, ...] = (
    *map(_by_token, (_case, _spaces, _remarks, _quotes, _qualified, _literals)),
    _damaged,
    _spliced,
    _spliced,
    _within(
        "with m as ({}) select * from m", "with m as materialized ({}) from m", "with m(c) as ({}) select c from m"
    ),
    _within("with recursive m as (select 1 as c union all ({})) from m", "with m as (with n as ({}) from n) from m"),
    _within("select * from ({}) m", "(({}))", "from ({})", "select m from ({}) m", "select count(*) from ({}) m"),
    _within("select ({}) as m", "select array({}) as m", "select 1 in ({}) as m", "select * from range(1) limit ({})"),
    _within("({}) union all ({other})", "select 1 union all by name ({})", "({}) except (select 1)"),
    _within("select * from range(1) r, lateral ({}) m", "select * from plain cross join ({}) m"),
    _within(
        "select 1 where exists ({})",
        "select x from plain order by ({})",
        "select sum(x) over (order by ({})) from plain",
    ),
    _within("select 1; {}", "{}; {other}", "{}; select 1", "explain {}", "prepare m as {}", "create view m as {}"),
    _within("copy ({}) to 'm.csv'", "with m as (copy ({}) to 'm.csv') from m", "from query($m${}$m$)"),
    _within(
        "with csv as ({}) from recurring.csv",
        'with "secret.csv" as ({}) from "secret.csv"',
        "with plain as ({}) from plain",
    ),
)
