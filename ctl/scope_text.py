"""What a person types as a scope: one value, or two with two dots between, of the type of the dataset's cursor."""

from ctl.connection import CALL_SECONDS, Connection
from ctl.errors import CtlError, ExitCode
from kernel.scopes import ScopeError, parse_cursor, scope_key
from traceapi.control.v1 import dataset_service_pb2 as api
from traceapi.types.v1 import scope_pb2
from traceapi.types.v1.scope_pb2 import CursorType, Scope

_ANY = "write one cursor value, or two with two dots between: 500000, 500000..500099"
_OF_TYPE = {
    CursorType.CURSOR_TYPE_INT64: "500000, or 500000..500099",
    CursorType.CURSOR_TYPE_TIMESTAMP: "2024-05-01T12:00:00Z, or two with two dots between",
    CursorType.CURSOR_TYPE_STRING: "one value, or two with two dots between",
}


def scope_of(connection: Connection, dataset_id: str, text: str) -> Scope:
    """Of this dataset, so that `2024` of a string cursor is no number. Raises CtlError (usage) and grpc.RpcError."""
    found = connection.datasets.GetDataset(api.GetDatasetRequest(dataset_id=dataset_id), timeout=CALL_SECONDS)
    return parse_scope(text, found.dataset.spec.cursor.type, of=dataset_id)


def parse_scope(text: str, cursor_type: CursorType.ValueType | None = None, *, of: str = "") -> Scope:
    """Where the type is not known it is the first that fits; unspecified, it is a partition key.

    Raises CtlError (usage), which names the dataset `of` which it is no scope.
    """
    if cursor_type == CursorType.CURSOR_TYPE_UNSPECIFIED:
        return Scope(partition_key=text)
    parts = text.split("..")
    if len(parts) > 2 or not all(parts):
        raise _no_scope(text, cursor_type, of)
    types = [kind for kind in CursorType.values() if kind] if cursor_type is None else [cursor_type]
    for kind in types:
        try:
            found = _scope([parse_cursor(part, kind) for part in parts])
        except ScopeError as error:
            if cursor_type is not None or not any(_is_number(part) for part in parts):
                continue
            raise _no_scope(text, cursor_type, of, why=error.violations[0].description) from error
        return _in_order(found, text)
    raise _no_scope(text, cursor_type, of)


def _scope(ends: list[scope_pb2.CursorValue]) -> Scope:
    if len(ends) == 1:
        return Scope(cursor=ends[0])
    return Scope(range=scope_pb2.CursorRange(first=ends[0], last=ends[1]))


def _in_order(found: Scope, text: str) -> Scope:
    try:
        scope_key(found)
    except ScopeError as error:
        why = error.violations[0].description
        raise CtlError(f"not a scope: {why}", remedy="write the lower end first", exit_code=ExitCode.USAGE) from error
    return found


def _is_number(text: str) -> bool:
    """What looks like one is one, and no string, also where it is too large."""
    return text.lstrip("+-").replace("_", "").isdigit()


def _no_scope(text: str, cursor_type: CursorType.ValueType | None, of: str, *, why: str = "") -> CtlError:
    remedy = _ANY
    if cursor_type is not None:
        name = CursorType.Name(cursor_type).removeprefix("CURSOR_TYPE_").lower()
        remedy = f"its cursor is of type {name}: write {_OF_TYPE[cursor_type]}"
    whose = f" of {of}" if of else ""
    reason = f" ({why})" if why else ""
    return CtlError(f"not a scope{whose}: {text!r}{reason}", remedy=remedy, exit_code=ExitCode.USAGE)
