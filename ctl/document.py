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


@dataclass(frozen=True, slots=True)
class Document:
    """A document as its author sees it. Paths in it are relative to its folder."""

    path: Path
    text: str

    @classmethod
    def read(cls, path: Path) -> "Document":
        """Raises CtlError where there is no such text."""
        try:
            with path.open("rb") as file:  # and no more than is looked at: it may have no end
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise CtlError(
                f"cannot read the document: {error.strerror}",
                where=str(path),
                remedy="name the file of a DAG document",
                exit_code=ExitCode.USAGE,
            ) from None
        if not data or len(data) > MAX_BYTES:
            size = "is empty" if not data else f"is too long: at most {MAX_BYTES:,} bytes are read"
            raise CtlError(f"the document {size}", where=str(path), remedy="name the file of a DAG document")
        try:
            return cls(path, data.decode())
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise CtlError("the document is not UTF-8", where=f"{path}:{line}", remedy="save it as UTF-8") from None

    def message(self) -> dags.DagDocument:
        return dags.DagDocument(text=self.text, file_name=os.fsencode(self.path).decode(errors="replace"))


def validate(connection: Connection, document: Document) -> dags.ValidateDagResponse:
    with connection.errors(str(document.path)):
        return connection.dags.ValidateDag(dags.ValidateDagRequest(document=document.message()), timeout=CALL_SECONDS)


def problems(document: Document, found: Sequence[dags.DagProblem]) -> RenderableType:
    """Each as file:line:column: what, the line with a caret below the place, and what would be right."""
    lines = document.text.splitlines()
    blocks: list[RenderableType] = []
    for problem in found:
        place = f"{problem.file_name or document.path}"
        place += f":{problem.line}:{problem.column}" if problem.line else f" ({problem.path})" if problem.path else ""
        blocks.append(Text.assemble((f"{place}: ", "bold"), (printable(problem.message, keep=LINES), "bad")))
        if 0 < problem.line <= len(lines):
            blocks.append(_source(lines[problem.line - 1], problem.line, problem.column))
        if problem.remedy:
            blocks.append(Text(f"  {printable(problem.remedy, keep=LINES)}", "hint"))
    # What has no place in the document says that there are more.
    count = sum(bool(problem.line or problem.path) for problem in found) or len(found)
    blocks.append(Text(f"{count} problem{'s' if count != 1 else ''}", "bad"))
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
