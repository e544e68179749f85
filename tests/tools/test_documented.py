"""What the documents for operators lean on exists: the tests that they name, the log lines, the examples."""

import re
from pathlib import Path

import pytest

from ctl.home import Home, read_endpoints
from dispatcher.config import DispatcherConfig
from kernel.config import load_config
from kernel.credentials import create_token_file
from kernel.settings import settings_of
from queryd.config import QuerydConfig
from tests.certificates import Authority
from tools import settings_page
from wrapper.config import WrapperConfig

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "production"
PROGRAMS = {"dispatcher": DispatcherConfig, "wrapper": WrapperConfig, "queryd": QuerydConfig}


def named_tests() -> list[str]:
    pages = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("promises.md", "operations.md")]
    return sorted({name for page in pages for name in re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", page)})


@pytest.mark.parametrize("name", named_tests())
def test_a_test_that_a_page_names_exists(name: str) -> None:
    file, _, function = name.partition("::")
    assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8") if function else (ROOT / file).is_file()


def test_every_promise_names_a_test() -> None:
    promised, _, _ = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8").partition("## Not promised")
    rows = [line for line in promised.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    assert [row for row in rows if "`tests/" not in row] == []


def test_the_log_lines_to_watch_are_logged() -> None:
    _, _, page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").partition("## Watching")
    events = re.findall(r"^\| `(.+?)` \| (?:dispatcher|wrapper|queryd|all)", page, re.MULTILINE)
    folders = ("dispatcher", "wrapper", "queryd", "kernel")
    sources = "".join(file.read_text(encoding="utf-8") for folder in folders for file in (ROOT / folder).rglob("*.py"))
    assert len(events) > 8
    assert [event for event in events if f'"{event}"' not in sources] == []


def test_the_page_of_settings_has_each_once() -> None:
    page = settings_page.page()
    for _, cls in settings_page.PROGRAMS:
        for setting in settings_of(cls):
            assert f"| `{setting.name}` `{setting.variable}` | {setting.type_text} |" in page


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_example_of_a_production_can_be_used(program: str, tmp_path: Path) -> None:
    text = (EXAMPLE / "trace.toml").read_text(encoding="utf-8").replace("/etc/trace", str(tmp_path))
    (tmp_path / "trace.toml").write_text(text)
    for role in ("worker", "queryd"):
        create_token_file(tmp_path / f"{role}.token")
    Authority.make(tmp_path).issue("host", "DNS:dispatcher.trace.example")
    load_config(PROGRAMS[program], program=program, environ={}, toml_path=tmp_path / "trace.toml")


def test_the_example_of_endpoints_can_be_read() -> None:
    found = read_endpoints(Home.at(EXAMPLE))
    assert found.tls is not None
    assert found.tls.authority == EXAMPLE / "authority.pem"


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_unit_of_a_program_starts_it_and_signals_it_alone(program: str) -> None:
    unit = (EXAMPLE / f"trace-{program}.service").read_text(encoding="utf-8")
    drain = next(setting.default for setting in settings_of(PROGRAMS[program]) if setting.name == "drain_seconds")
    stop = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert f"/trace-{program} --config /etc/trace/trace.toml\n" in unit
    assert "KillMode=mixed\n" in unit
    assert stop is not None
    assert int(stop[1]) > drain + 10
