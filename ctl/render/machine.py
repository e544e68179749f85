"""Output for programs: the contract's messages in protobuf's canonical JSON, and nothing else on standard output."""

import json
import sys
from typing import Any

from google.protobuf.json_format import MessageToDict, MessageToJson
from google.protobuf.message import Message


def print_message(message: Message) -> None:
    """Field names in lowerCamelCase, 64-bit integers as strings, bytes in base64: any protobuf library parses it."""
    print(MessageToJson(message, indent=2, ensure_ascii=False))


def print_line(message: Message) -> None:
    """The same on one line, which is there at once: one of many, for a program that reads them as they come."""
    print(MessageToJson(message, indent=None, ensure_ascii=False), flush=True)


def as_document(message: Message) -> dict[str, Any]:
    """The same as a value, to stand inside a document of several messages."""
    return MessageToDict(message)


def print_document(document: dict[str, Any]) -> None:
    json.dump(document, sys.stdout, indent=2, ensure_ascii=False)
    print()
