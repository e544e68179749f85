"""Planted bugs: protocol mistakes that somebody might make, put into a running program by a test.

A bug replaces a piece of a statement's text, or a function. Nothing of the product knows of it: `planted` patches
modules of the process that calls it, which is a test, or `tests.chaos.program` where CHAOS_BUG names a bug. A patch
that no longer applies is an error, so that none is planted in name only.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from unittest.mock import patch

from dispatcher.db.statements import Statements


class Patch(Protocol):
    """What a bug changes."""

    def apply(self, stack: ExitStack) -> None: ...


@dataclass(frozen=True, slots=True)
class Sql(Patch):
    """A piece of a statement's text, in the module that has the statements. It must be there exactly once."""

    module: str
    statement: str
    old: str
    new: str

    def apply(self, stack: ExitStack) -> None:
        module = importlib.import_module(self.module)
        present: Statements = module._sql
        text = present[self.statement]
        if text.count(self.old) != 1:
            raise LookupError(f"{self.old!r} is {text.count(self.old)} times in {self.statement} of {self.module}")
        texts = {name: present[name] for name in present} | {self.statement: text.replace(self.old, self.new)}
        changed = Statements("\n".join(f"{one};" for one in texts.values()), self.module)
        stack.enter_context(patch.object(module, "_sql", changed))


@dataclass(frozen=True, slots=True)
class Function(Patch):
    """A function or method, `module:name` or `module:Class.name`. `make` gets the right one and answers a wrong one."""

    target: str
    make: Callable[[Any], Any]

    def apply(self, stack: ExitStack) -> None:
        module, _, path = self.target.partition(":")
        *owners, name = path.split(".")
        owner = importlib.import_module(module)
        for part in owners:
            owner = getattr(owner, part)
        present = getattr(owner, name)
        changed = property(self.make(present.fget)) if isinstance(present, property) else self.make(present)
        stack.enter_context(patch.object(owner, name, changed))


@dataclass(frozen=True, slots=True)
class Bug:
    """A mistake, and what finds it: the scenario in which it shows, and the invariant that is broken there. Where the
    schema would stop it by itself, `schema` takes that index away."""

    what: str
    patches: Sequence[Patch]
    scenario: str
    invariant: str
    schema: str = ""


@contextmanager
def planted(patches: Iterable[Patch]) -> Iterator[None]:
    """They are in this process until the end of the block."""
    with ExitStack() as stack:
        for one in patches:
            one.apply(stack)
        yield
