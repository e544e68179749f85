"""One frozen object from a file and the environment, or all faults at once."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import pytest

from kernel.config import ConfigError, SecretStr, load_config, read_config
from kernel.settings import Range, Rule, require


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Config:
    listen: str
    database_url: SecretStr
    capacity: int = 8
    ratio: float = 0.5
    verbose: bool = False
    work_dir: Path = Path("/work")
    queues: tuple[str, ...] = ("default",)
    sandbox: Literal["bubblewrap", "plain"] = "bubblewrap"
    colour: Colour = Colour.RED
    ready_file: Path | None = None
    limits: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ValueError("TRACE_CAPACITY: must be at least 1")


REQUIRED = {"TRACE_LISTEN": "127.0.0.1:0", "TRACE_DATABASE_URL": "postgresql://u:hunter2@h/d"}


def load(environ: dict[str, str], toml: Path | None = None) -> Config:
    return load_config(Config, program="dispatcher", environ=environ, toml_path=toml)


def toml_file(folder: Path, text: str) -> Path:
    path = folder / "trace.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_environment_gives_every_type() -> None:
    found = load(
        REQUIRED
        | {
            "TRACE_CAPACITY": "16",
            "TRACE_RATIO": "1",
            "TRACE_VERBOSE": "Yes",
            "TRACE_WORK_DIR": "/tmp/w",
            "TRACE_QUEUES": "a, b,,c",
            "TRACE_SANDBOX": "plain",
            "TRACE_COLOUR": "blue",
            "TRACE_READY_FILE": "/run/ready",
            "TRACE_LIMITS": "1,2",
        }
    )
    assert found == Config(
        "127.0.0.1:0",
        SecretStr("postgresql://u:hunter2@h/d"),
        16,
        1.0,
        True,
        Path("/tmp/w"),
        ("a", "b", "c"),
        "plain",
        Colour.BLUE,
        Path("/run/ready"),
        (1, 2),
    )


def test_defaults_hold_where_nothing_is_said() -> None:
    found = load(REQUIRED | {"TRACE_CAPACITY": ""})
    assert (found.capacity, found.queues, found.ready_file) == (8, ("default",), None)


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    path = toml_file(tmp_path, '[dispatcher]\nlisten = "a:1"\ndatabase_url = "x"\ncapacity = 3\nqueues = ["q"]\n')
    found = load({"TRACE_CAPACITY": "5"}, path)
    assert (found.listen, found.database_url.reveal(), found.capacity, found.queues) == ("a:1", "x", 5, ("q",))


def test_tables_of_other_programs_are_not_read(tmp_path: Path) -> None:
    path = toml_file(tmp_path, "[wrapper]\ncapacity = 99\nno_such = 1\n")
    assert load(REQUIRED, path).capacity == 8


def test_all_faults_are_reported_together(tmp_path: Path) -> None:
    path = toml_file(tmp_path, '[dispatcher]\ncapactiy = 3\nratio = "half"\nqueues = "q"\n')
    environ = {
        "TRACE_CAPACITY": "many",
        "TRACE_VERBOSE": "maybe",
        "TRACE_SANDBOX": "docker",
        "TRACE_COLOUR": "green",
        "TRACE_LIMITS": "1,x",
    }
    with pytest.raises(ConfigError) as caught:
        load(environ, path)
    said = str(caught.value)
    for fault in (
        "capactiy: no such setting",
        "ratio: must be of type float",
        "queues: must be a list",
        "TRACE_CAPACITY: 'many' is not a whole number",
        "TRACE_VERBOSE: 'maybe' is neither true nor false",
        "TRACE_SANDBOX: 'docker': use one of bubblewrap, plain",
        "TRACE_COLOUR: 'green': use one of red, blue",
        "TRACE_LIMITS: 'x' is not a whole number",
        "TRACE_LISTEN: is required",
        "TRACE_DATABASE_URL: is required",
    ):
        assert fault in said
    assert len(caught.value.faults) == 10


def test_rules_across_settings_are_faults_too() -> None:
    with pytest.raises(ConfigError, match="must be at least 1"):
        load(REQUIRED | {"TRACE_CAPACITY": "0"})


@pytest.mark.parametrize("text", ["capacity = [", "dispatcher = 1"])
def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"trace\.toml"):
        load(REQUIRED, toml_file(tmp_path, text))


def test_an_absent_file_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(REQUIRED, tmp_path / "absent.toml")


def test_secrets_are_never_shown() -> None:
    found = load(REQUIRED)
    assert "hunter2" in found.database_url.reveal()
    for shown in (
        repr(found),
        str(found),
        f"{found.database_url}",
        f"{found.database_url!r}",
    ):
        assert "hunter2" not in shown


def test_a_number_in_the_file_is_not_a_truth_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="capacity: must be of type int"):
        load(REQUIRED, toml_file(tmp_path, "[dispatcher]\ncapacity = true\n"))


def refuse_empty(text: str) -> None:
    if not text:
        raise ValueError("must not be empty")


@dataclass(frozen=True, slots=True)
class Bounded:
    capacity: Annotated[int, Range(1, 10)] = 8
    name: Annotated[str, Rule(refuse_empty)] = "local"
    first: int = 0
    second: int = 0

    def __post_init__(self) -> None:
        def positive(name: str) -> None:
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: must not be negative")

        require(lambda: positive("first"), lambda: positive("second"))


def bounded_faults(folder: Path, text: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(Bounded, program="wrapper", environ=environ or {}, toml_path=toml_file(folder, text))
    return [fault.strip().removeprefix(f"{folder / 'trace.toml'} ") for fault in caught.value.faults]


def test_conditions_of_all_settings_are_checked_together(tmp_path: Path) -> None:
    faults = bounded_faults(tmp_path, "[wrapper]\nname = ''\n", {"TRACE_CAPACITY": "11"})
    assert faults == ["TRACE_CAPACITY: must be from 1 to 10", "[wrapper] name: must not be empty"]


def test_nan_is_no_number_within_a_range() -> None:
    with pytest.raises(ValueError, match="at least 0"):
        Range(0).check(float("nan"))


def test_all_rules_across_settings_are_told_together(tmp_path: Path) -> None:
    faults = bounded_faults(tmp_path, "[wrapper]\nfirst = -1\nsecond = -1\n")
    assert faults == ["first: must not be negative", "second: must not be negative"]


def test_an_unknown_setting_is_told_with_the_nearest_known_one(tmp_path: Path) -> None:
    faults = bounded_faults(tmp_path, "[wrapper]\ncapactiy = 3\nzzz = 1\n")
    assert faults == [
        "[wrapper] capactiy: no such setting; did you mean capacity?",
        "[wrapper] zzz: no such setting",
    ]


def test_a_setting_outside_of_a_table_is_told(tmp_path: Path) -> None:
    assert bounded_faults(tmp_path, "capacity = 3\n[wrapper]\n") == [
        "capacity: stands in no table; write it below [wrapper]"
    ]


def test_a_table_of_nearly_the_right_name_is_told(tmp_path: Path) -> None:
    assert bounded_faults(tmp_path, "[wraper]\n[dispatcher]\n") == [
        "[wraper]: there is no [wrapper], which is what this program reads"
    ]


def test_where_each_value_comes_from_is_known(tmp_path: Path) -> None:
    path = toml_file(tmp_path, "[wrapper]\ncapacity = 3\nfirst = 1\n")
    loaded = read_config(Bounded, program="wrapper", environ={"TRACE_FIRST": "2"}, toml_path=path)
    assert loaded.config == Bounded(capacity=3, first=2)
    assert loaded.sources == {
        "capacity": str(path),
        "name": "default",
        "first": "TRACE_FIRST",
        "second": "default",
    }
