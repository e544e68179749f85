"""Output for programs: the contract's messages in protobuf's canonical JSON, and nothing else on standard output."""

import io
import json
import sys
from typing import Any, TextIO

from google.protobuf.json_format import MessageToDict, MessageToJson
from google.protobuf.message import Message


def stdout() -> TextIO:
    """Standard output in UTF-8, whatever the terminal's encoding: JSON and CSV are for programs, and exact."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="strict")
    return sys.stdout


def print_message(message: Message) -> None:
    """Field names in lowerCamelCase, 64-bit integers as strings, bytes in base64: any protobuf library parses it."""
    print(MessageToJson(message, indent=2, ensure_ascii=False), file=stdout())


def print_line(message: Message) -> None:
    """The same on one line, which is there at once: one of many, for a program that reads them as they come."""
    print(MessageToJson(message, indent=None, ensure_ascii=False), file=stdout(), flush=True)


def as_document(message: Message) -> dict[str, Any]:
    """The same as a value, to stand inside a document of several messages."""
    return MessageToDict(message)


def print_document(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False), file=stdout())
