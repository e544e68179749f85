"""A DAG document on this disk: its text, its problems as they are shown, and the upload of the paths that it names."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.text import Text

from ctl.connection import CALL_SECONDS, Connection
from ctl.errors import CtlError, ExitCode
from ctl.render.printable import LINES, printable
from kernel.bundles import Bundle
from traceapi.control.v1 import dag_service_pb2 as dags

MAX_BYTES = 1024 * 1024
_PART_BYTES = 1024 * 1024
_UPLOAD_SECONDS = 600.0
_ANOTHER_FILE = "name the file of a DAG document"


@dataclass(frozen=True, slots=True)
class Document:
    """A document as its author sees it. Paths in it are relative to its folder."""

    path: Path
    text: str

    @classmethod
    def read(cls, path: Path) -> "Document":
        """Raises UnreadableDocument where there is no such text."""
        no_text = cls(path, "")
        try:
            with path.open("rb") as file:  # and no more than is looked at: it may have no end
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            fault = f"cannot read the document: {error.strerror}"
            raise UnreadableDocument(no_text, fault, _ANOTHER_FILE, exit_code=ExitCode.USAGE) from None
        if not data:
            raise UnreadableDocument(no_text, "the document is empty", "begin with `dag: name`")
        if len(data) > MAX_BYTES:
            fault = f"the document is too long: at most {MAX_BYTES:,} bytes are read"
            raise UnreadableDocument(no_text, fault, _ANOTHER_FILE)
        try:
            return cls(path, data.decode())
        except UnicodeDecodeError as error:
            before = f"{data[: error.start].decode()}.".splitlines()
            shown = cls(path, data.decode(errors="replace"))
            fault, line, column = "the document is not UTF-8", len(before), len(before[-1])
            raise UnreadableDocument(shown, fault, "save it as UTF-8", line=line, column=column) from None

    @property
    def name(self) -> str:
        """As messages carry it, also where the path is no text."""
        return os.fsencode(self.path).decode(errors="replace")

    def message(self) -> dags.DagDocument:
        return dags.DagDocument(text=self.text, file_name=self.name)


class UnreadableDocument(CtlError):
    """There is no text of a document: a problem with its place, as those are that stand in the text."""

    def __init__(
        self,
        document: Document,
        message: str,
        remedy: str,
        *,
        line: int = 1,
        column: int = 1,
        exit_code: ExitCode = ExitCode.FAULTY,
    ) -> None:
        super().__init__(message, where=f"{document.path}:{line}:{column}", remedy=remedy, exit_code=exit_code)
        self.document = document
        self.problem = dags.DagProblem(
            file_name=document.name, line=line, column=column, message=message, remedy=remedy
        )


def validate(connection: Connection, document: Document) -> dags.ValidateDagResponse:
    with connection.errors(str(document.path)):
        return connection.dags.ValidateDag(dags.ValidateDagRequest(document=document.message()), timeout=CALL_SECONDS)


def problems(document: Document, found: Sequence[dags.DagProblem], *, more: bool = False) -> RenderableType:
    """Each as file:line:column: what, the line with a caret below the place, and what would be right.

    `more`: the document may have more than these.
    """
    lines = document.text.splitlines()
    blocks: list[RenderableType] = []
    for problem in found:
        place = problem.file_name or document.name
        place += f":{problem.line}:{problem.column}" if problem.line else f" ({problem.path})" if problem.path else ""
        blocks.append(Text.assemble((f"{place}: ", "bold"), (printable(problem.message, keep=LINES), "bad")))
        if 0 < problem.line <= len(lines):
            blocks.append(_source(lines[problem.line - 1], problem.line, problem.column))
        if problem.remedy:
            blocks.append(Text(f"  {printable(problem.remedy, keep=LINES)}", "hint"))
    count = f"{len(found)} problem{'s' if len(found) != 1 else ''}"
    blocks.append(Text(count + (" shown; more were not looked for: correct these first" if more else ""), "bad"))
    return Group(*blocks)


def _source(line: str, number: int, column: int) -> Text:
    """The line, cut around the column where it is very long, and a caret that also stands right after wide letters."""
    start = max(0, column - 80)
    shown = line[start : start + 120].replace("\t", " ")
    before = line[start : max(start, column - 1)].replace("\t", " ")
    shown, before = printable(shown), printable(before)
    margin = f"  {number} │ "
    caret = " " * (len(margin) - 2) + "│ " + " " * cell_len(before) + "▲"
    return Text.assemble((margin, "hint"), shown, "\n", (caret, "bad"), no_wrap=True, overflow="crop")


def upload_bundles(connection: Connection, bundles: Mapping[str, Bundle]) -> Mapping[str, str]:
    """Uploads packed paths; answers path to digest, as Deploy wants it."""
    digests: dict[str, str] = {}
    for path, bundle in bundles.items():
        with connection.errors(path):
            answer = connection.dags.UploadBundle(_parts(bundle), timeout=_UPLOAD_SECONDS)
        digests[path] = answer.digest
    return digests


def _parts(bundle: Bundle) -> Iterator[dags.UploadBundleRequest]:
    yield dags.UploadBundleRequest(sha256=bytes.fromhex(bundle.digest))
    for start in range(0, len(bundle.data), _PART_BYTES):
        yield dags.UploadBundleRequest(data=bundle.data[start : start + _PART_BYTES])
