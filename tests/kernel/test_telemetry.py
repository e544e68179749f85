"""What logs look like, for machines and for people."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from kernel.telemetry import configure_logging, get_logger


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_log_line_is_a_json_object_with_fields() -> None:
    stream = io.StringIO()
    log = get_logger("dispatcher.tasks")
    configure_logging("dispatcher", stream=stream)
    log.info("task leased – once", task_id="t1", attempt=2)
    (line,) = lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {
        "event": "task leased – once",
        "level": "info",
        "program": "dispatcher",
        "module": "dispatcher.tasks",
        "task_id": "t1",
        "attempt": 2,
    }


def test_an_exception_stays_in_its_line() -> None:
    stream = io.StringIO()
    configure_logging("wrapper", stream=stream)
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        get_logger("wrapper").exception("failed")
    (line,) = lines(stream)
    assert "RuntimeError: broken" in line["exception"]


def test_libraries_log_in_the_same_form() -> None:
    stream = io.StringIO()
    configure_logging("queryd", stream=stream)
    logging.getLogger("some.library").warning("odd: %s", 7)
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["program"], line["module"]) == (
        "odd: 7",
        "warning",
        "queryd",
        "some.library",
    )


def test_fields_of_the_context_are_in_every_line() -> None:
    stream = io.StringIO()
    configure_logging("wrapper", stream=stream)
    structlog.contextvars.bind_contextvars(trace_id="abc")
    get_logger("wrapper").info("one")
    logging.getLogger("library").warning("two")
    assert [line["trace_id"] for line in lines(stream)] == ["abc", "abc"]


def test_the_level_holds_for_all() -> None:
    stream = io.StringIO()
    configure_logging("wrapper", stream=stream, level="WARNING")
    get_logger("wrapper").info("no")
    logging.getLogger("library").info("no")
    get_logger("wrapper").warning("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]


def test_configuring_again_replaces() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging("wrapper", stream=first)
    configure_logging("wrapper", stream=second)
    logging.getLogger("library").warning("once")
    assert (first.getvalue(), len(lines(second))) == ("", 1)


def test_people_at_a_terminal_get_text_without_the_values_of_variables() -> None:
    stream = Terminal()
    configure_logging("wrapper", stream=stream)
    token = "hunter2-token"
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        get_logger("wrapper").exception("failed", task_id="t1")
    text = stream.getvalue()
    assert "failed" in text
    assert "RuntimeError: broken" in text
    assert token not in text
    with pytest.raises(json.JSONDecodeError):
        json.loads(text.splitlines()[0])


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="use one of debug"):
        configure_logging("wrapper", level="loud")
