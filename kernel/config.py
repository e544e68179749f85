"""Configuration: one frozen object for each program, read once, from a TOML file and then the environment.

A program declares a frozen dataclass. Field `lease_seconds` comes from `lease_seconds` in the file's table named like
the program, and `TRACE_LEASE_SECONDS` overrides it. All faults are reported together. Secrets are declared as
`SecretStr`, which never shows its content by itself.
"""

import dataclasses
import tomllib
import types
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_PREFIX = "TRACE_"
_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


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


class ConfigError(Exception):
    """All faults of a configuration; each names its setting and says what would be right."""

    def __init__(self, program: str, faults: list[str]) -> None:
        super().__init__("\n".join([f"{program}: the configuration has {len(faults)} fault(s):", *faults]))
        self.faults = tuple(faults)


def load_config(cls: type[T], *, program: str, environ: Mapping[str, str], toml_path: Path | None) -> T:
    """The configuration of `program`: the file first, then the environment. An empty variable counts as unset.

    Fields may be str, int, float, bool, Path, SecretStr, an Enum, a Literal of strings, `tuple[X, ...]` (separated by
    commas in the environment) or any of them `| None`. ConfigError lists every fault; a ValueError of the dataclass's
    own `__post_init__`, which runs once its fields are sound, becomes one too.
    """
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls.__name__} is not a dataclass")
    faults: list[str] = []
    table = _read_table(program, toml_path, faults)
    hints = get_type_hints(cls)
    fields = [field for field in dataclasses.fields(cls) if field.init]
    unknown = table.keys() - {field.name for field in fields}
    faults.extend(f"  {toml_path} [{program}] {name}: no such setting" for name in sorted(unknown))
    values: dict[str, Any] = {}
    for field in fields:
        variable = _PREFIX + field.name.upper()
        text = environ.get(variable, "")
        try:
            if text:
                values[field.name] = _from_text(hints[field.name], text)
            elif field.name in table:
                values[field.name] = _from_toml(hints[field.name], table[field.name])
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                faults.append(f"  {variable}: is required")
        except ValueError as error:
            source = variable if text else f"{toml_path} [{program}] {field.name}"
            faults.append(f"  {source}: {error}")
    if faults:
        raise ConfigError(program, faults)
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(program, [f"  {error}"]) from error


def _read_table(program: str, toml_path: Path | None, faults: list[str]) -> dict[str, Any]:
    if toml_path is None:
        return {}
    try:
        document = tomllib.loads(toml_path.read_text(encoding="utf-8"))
    except OSError as error:
        faults.append(f"  {toml_path}: {error.strerror}")
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        faults.append(f"  {toml_path}: {error}")
        return {}
    table = document.get(program, {})
    if not isinstance(table, dict):
        faults.append(f"  {toml_path}: [{program}] is not a table")
        return {}
    return table


def _from_text(hint: Any, text: str) -> Any:
    """A value of the environment."""
    hint = _without_none(hint)
    if get_origin(hint) is tuple:
        return tuple(_from_text(get_args(hint)[0], part.strip()) for part in text.split(",") if part.strip())
    if hint is bool:
        if text.lower() not in _BOOLEANS:
            raise ValueError(f"{text!r} is neither true nor false")
        return _BOOLEANS[text.lower()]
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            raise ValueError(f"{text!r} is not {'a whole number' if hint is int else 'a number'}") from None
    return _from_string(hint, text)


def _from_toml(hint: Any, value: Any) -> Any:
    """A value of the file, which has types of its own: a number is not given as a string."""
    hint = _without_none(hint)
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ValueError("must be a list")
        return tuple(_from_toml(get_args(hint)[0], item) for item in value)
    if hint in (bool, int, float):
        accepted = {bool: (bool,), int: (int,), float: (int, float)}[hint]
        if not isinstance(value, accepted) or (hint is not bool and isinstance(value, bool)):
            raise ValueError(f"must be of type {hint.__name__}")
        return hint(value)
    if not isinstance(value, str):
        raise ValueError("must be a string")
    return _from_string(hint, value)


def _from_string(hint: Any, text: str) -> Any:
    if get_origin(hint) is Literal:
        if text not in get_args(hint):
            raise ValueError(f"{text!r}: use one of {', '.join(get_args(hint))}")
        return text
    if isinstance(hint, type) and issubclass(hint, Enum):
        try:
            return hint(text)
        except ValueError:
            raise ValueError(f"{text!r}: use one of {', '.join(str(item.value) for item in hint)}") from None
    if hint in (str, Path, SecretStr):
        return hint(text)
    raise TypeError(f"a configuration cannot have a field of type {hint}")


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        kept = [argument for argument in get_args(hint) if argument is not type(None)]
        if len(kept) == 1:
            return kept[0]
    return hint
