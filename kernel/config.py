"""Configuration: one frozen object for each program, read once, from a TOML file and then the environment.

A program declares a frozen dataclass (settings.py). Setting `lease_seconds` comes from `lease_seconds` in the file's
table named like the program, and `TRACE_LEASE_SECONDS` overrides it. All faults are reported together. Secrets are
declared as `SecretStr`, which never shows its content by itself.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin

from kernel.likeness import nearest
from kernel.settings import SecretStr, Setting, settings_of

__all__ = ["ConfigError", "Loaded", "SecretStr", "load_config", "read_config"]

T = TypeVar("T")

_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


class ConfigError(Exception):
    """All faults of a configuration; each names its setting and says what would be right."""

    def __init__(self, program: str, faults: list[str]) -> None:
        super().__init__("\n".join([f"{program}: the configuration has {len(faults)} fault(s):", *faults]))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """A configuration, and by setting where its value comes from: a variable, a file, or `default`."""

    config: T
    sources: Mapping[str, str]


def load_config(cls: type[T], *, program: str, environ: Mapping[str, str], toml_path: Path | None) -> T:
    """As `read_config`, without the sources."""
    return read_config(cls, program=program, environ=environ, toml_path=toml_path).config


def read_config(cls: type[T], *, program: str, environ: Mapping[str, str], toml_path: Path | None) -> Loaded[T]:
    """The configuration of `program`: the file first, then the environment. An empty variable counts as unset.

    Fields may be str, int, float, bool, Path, SecretStr, an Enum, a Literal of strings, `tuple[X, ...]` (separated by
    commas in the environment) or any of them `| None`, and be Annotated with Range and Rule. ConfigError lists every
    fault. A ValueError of the dataclass's own `__post_init__`, which runs once its fields are sound, becomes one too:
    each of its arguments is a fault.
    """
    settings = settings_of(cls)
    faults: list[str] = []
    table = _read_table(program, toml_path, faults)
    names = [setting.name for setting in settings]
    faults.extend(
        f"  {toml_path} [{program}] {name}: no such setting{nearest(name, names)}"
        for name in sorted(table.keys() - set(names))
    )
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for setting in settings:
        text = environ.get(setting.variable, "")
        sources[setting.name] = setting.variable if text else str(toml_path) if setting.name in table else "default"
        try:
            if text:
                values[setting.name] = _sound(setting, _from_text(setting.hint, text))
            elif setting.name in table:
                values[setting.name] = _sound(setting, _from_toml(setting.hint, table[setting.name]))
            elif setting.required:
                faults.append(f"  {setting.variable}: is required")
        except ValueError as error:
            source = setting.variable if text else f"{toml_path} [{program}] {setting.name}"
            faults.append(f"  {source}: {error}")
    if faults:
        raise ConfigError(program, faults)
    try:
        return Loaded(cls(**values), sources)
    except ValueError as error:
        raise ConfigError(program, [f"  {fault}" for fault in error.args]) from error


def _sound(setting: Setting, value: Any) -> Any:
    for condition in setting.conditions:
        condition.check(value)
    return value


def _read_table(program: str, toml_path: Path | None, faults: list[str]) -> dict[str, Any]:
    """The program's table. Others belong to other programs, which may share the file."""
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
    faults.extend(
        f"  {toml_path} {name}: stands in no table; write it below [{program}]"
        for name, value in document.items()
        if not isinstance(value, dict) and name != program
    )
    if program not in document:
        faults.extend(
            f"  {toml_path} [{name}]: there is no [{program}], which is what this program reads"
            for name in document
            if nearest(name, [program])
        )
    table = document.get(program, {})
    if not isinstance(table, dict):
        faults.append(f"  {toml_path}: [{program}] is not a table")
        return {}
    return table


def _from_text(hint: Any, text: str) -> Any:
    """A value of the environment."""
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
