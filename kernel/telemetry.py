"""Logs: one JSON object a line with fields, or coloured lines where a person looks at a terminal.

`configure_logging` is called once, by a program's main. Libraries that log through `logging` come out in the same form.
"""

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import FilteringBoundLogger, Processor

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logging(program: str, *, stream: TextIO | None = None, level: str = "info") -> None:
    """Send this process's logs to `stream` (default: standard error). Every line names the program.

    `level` is one of debug, info, warning, error. Calling it again replaces the earlier settings.
    """
    if level.lower() not in _LEVELS:
        raise ValueError(f"log level {level!r}: use one of {', '.join(_LEVELS)}")
    target = stream if stream is not None else sys.stderr
    threshold = _LEVELS[level.lower()]

    def add_program(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["program"] = program
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        add_program,
        structlog.processors.StackInfoRenderer(),
    ]
    output: list[Processor] = (
        # Plain, because the pretty form shows the values of variables, and with them credentials.
        [structlog.dev.ConsoleRenderer(timestamp_key="time", exception_formatter=structlog.dev.plain_traceback)]
        if target.isatty()
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str, ensure_ascii=False)]
    )
    structlog.configure(
        processors=[*shared, *output],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=target),
        # Loggers are made at import, before this is called, and tests call it again.
        cache_logger_on_first_use=False,
    )
    _configure_standard_logging(shared, output, target, threshold)


def _configure_standard_logging(
    shared: list[Processor], output: list[Processor], target: TextIO, threshold: int
) -> None:
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *output],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)


def _add_logger_name(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    event["module"] = event["_record"].name
    return event


def get_logger(name: str) -> FilteringBoundLogger:
    """The logger of a module. Messages are constant, what varies is a field: `log.info("leased", task_id=task_id)`."""
    logger: FilteringBoundLogger = structlog.get_logger(module=name)
    return logger
