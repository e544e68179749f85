"""What a program's settings are: read off its frozen dataclass, which is the one source of them.

The field's name is the key in the file, `TRACE_` and the name in capitals the variable; its annotation is the type, and
`Annotated` adds what else a value must be; the string below the field says what it means. Loading (config.py), `--help`
(command_line.py) and docs/reference/settings.md all read this.
"""

import ast
import dataclasses
import inspect
import json
import textwrap
import types
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

PREFIX = "TRACE_"
_TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}


class SecretStr:
    """Text that is not shown: `repr`, `str` and logs give stars, `reveal()` the content."""

    __slots__ = ("_content",)

    def __init__(self, content: str) -> None:
        self._content = content

    def reveal(self) -> str:
        """The content. Do not log it."""
        return self._content

    def __repr__(self) -> str:
        return "SecretStr('***')"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretStr) and other._content == self._content

    def __hash__(self) -> int:
        return hash(self._content)


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """The numbers that a setting may have, both ends included."""

    least: float
    most: float | None = None

    def check(self, value: float) -> None:
        """ValueError for a number outside, and for one that is none."""
        if not self.least <= value <= (float("inf") if self.most is None else self.most):
            raise ValueError(f"must be {self}")

    def __str__(self) -> str:
        return f"at least {self.least}" if self.most is None else f"from {self.least} to {self.most}"


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """What else a value must be: `check` raises ValueError, in words that can follow the setting's name."""

    check: Callable[[Any], object]


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """A value for the example file of `--help`; settings without one do not stand in it."""

    value: "str | float | tuple[str, ...]"

    @property
    def toml(self) -> str:
        """As a TOML value; JSON's strings, numbers and lists are TOML's."""
        return json.dumps(self.value)


Condition: TypeAlias = Range | Rule


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `hint` is its type without `Annotated` and `| None`."""

    name: str
    hint: Any
    default: Any
    """`dataclasses.MISSING` where there must be a value."""
    conditions: tuple[Condition, ...]
    example: Example | None

    @property
    def variable(self) -> str:
        return variable_of(self.name)

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING

    @property
    def type_text(self) -> str:
        """For people: `whole number from 1 to 1000`."""
        ranges = [str(condition) for condition in self.conditions if isinstance(condition, Range)]
        return " ".join([_type_text(self.hint), *ranges])

    @property
    def default_text(self) -> str:
        """For people: `required`, or the value, or `none`."""
        return "required" if self.required else value_text(self.default)


def settings_of(cls: type) -> tuple[Setting, ...]:
    """The settings that a configuration's dataclass declares, in its order."""
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls.__name__} is not a dataclass")
    hints = get_type_hints(cls, include_extras=True)
    return tuple(_setting(field, hints[field.name]) for field in dataclasses.fields(cls) if field.init)


def meanings_of(cls: type) -> Mapping[str, str]:
    """By setting, the string that stands below its field, in one line; none where there is none."""
    (declaration,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(declaration, ast.ClassDef)  # noqa: S101 - the source of a class is one
    found = {}
    for statement, following in pairwise(declaration.body):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as text)):
                found[name] = " ".join(text.split())
    return found


def variable_of(name: str) -> str:
    """The environment's name of a setting."""
    return PREFIX + name.upper()


def value_text(value: object) -> str:
    """A value for people, secrets as stars."""
    if value is None or value in ("", ()):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(map(value_text, value))
    return str(value.value if isinstance(value, Enum) else value)


def require(*checks: Callable[[], object]) -> None:
    """For `__post_init__`: makes all checks; a ValueError has every fault that they raise one for, as an argument."""
    faults: list[object] = []
    for check in checks:
        try:
            check()
        except ValueError as error:
            faults.extend(error.args)
    if faults:
        raise ValueError(*faults)


def _setting(field: "dataclasses.Field[Any]", hint: Any) -> Setting:
    extras: Iterable[Any] = ()
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
    conditions = tuple(extra for extra in extras if isinstance(extra, Range | Rule))
    example = next((extra for extra in extras if isinstance(extra, Example)), None)
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    return Setting(field.name, _without_none(hint), default, conditions, example)


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        kept = [argument for argument in get_args(hint) if argument is not type(None)]
        if len(kept) == 1:
            return kept[0]
    return hint


def _type_text(hint: Any) -> str:
    if get_origin(hint) is tuple:
        return f"list of {_type_text(get_args(hint)[0])}"
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return f"one of {', '.join(str(item.value) for item in hint)}"
    return "text, secret" if hint is SecretStr else _TYPES[hint]
