"""What a cell says of texts before it runs one: what it asks for, and which rows count in the datasets that it reads.

The parser sees hostile text too, so it works in the cell, under the limits of the query.
"""

from collections.abc import Sequence

from kernel.dataset_sql import folded
from queryd import failures
from queryd.columns import known_columns
from queryd.demands import Demands
from queryd.engine import messages
from queryd.engine.frames import Kind, ProtocolError
from queryd.engine.messages import CheckedText, Name, VirtualTexts
from queryd.engine.process import CellProcess
from queryd.set_operations import Columns
from queryd.terms import Terms
from traceapi.control.v1.dataset_service_pb2 import PinDatasetsResponse
from traceapi.types.v1.dag_pb2 import Storage
from traceapi.types.v1.dataset_pb2 import Dataset


def checked(cell: CellProcess, sql: str) -> CheckedText:
    """What a text asks for. TraceError for one that the gate refuses."""
    cell.send(Kind.CHECK, sql.encode())
    kind, payload = cell.receive()
    if kind is Kind.CHECKED:
        return messages.unpack_checked(payload)
    if kind is Kind.FAILED:
        raise failures.of_failure(messages.unpack_failure(payload), cell.store)
    raise ProtocolError(f"{kind} while names were awaited")


def demanded(names: Sequence[Name]) -> Demands:
    """By name, however it is written, what each mention of it in the text demands of rows."""
    found: dict[str, list[Terms]] = {}
    for name in names:
        found.setdefault(name.dataset_id, []).extend(name.mentions)
    return found


def demands(cell: CellProcess, pinned: PinDatasetsResponse, names: Sequence[Name]) -> Demands:
    """By dataset id, what each mention of a dataset demands of rows, in the text or in a virtual dataset; none for a
    dataset of which every row may count."""
    known = {folded(item.dataset.dataset_id): item.dataset.dataset_id for item in pinned.datasets}
    known |= {folded(item.name): item.dataset.dataset_id for item in pinned.datasets if item.name}
    named: dict[str, list[Terms]] = {}
    for name, mentions in demanded(names).items():
        dataset_id = known.get(folded(name))
        if dataset_id is None:
            raise ProtocolError("a name that was not pinned")
        named.setdefault(dataset_id, []).extend(mentions)
    virtual = {item.dataset.dataset_id: item.dataset.virtual_sql for item in pinned.datasets}
    virtual = {dataset_id: sql for dataset_id, sql in virtual.items() if sql}
    if not virtual:
        return named
    stored = [item.dataset for item in pinned.datasets if not item.dataset.virtual_sql]
    columns = {dataset.dataset_id: _columns(dataset) for dataset in stored}
    cell.send(Kind.DEMAND, messages.pack_virtual(VirtualTexts(named, virtual, known, columns)))
    kind, payload = cell.receive()
    if kind is Kind.FAILED:
        raise failures.of_failure(messages.unpack_failure(payload), cell.store)
    if kind is not Kind.DEMANDED:
        raise ProtocolError(f"{kind} while demands were awaited")
    return messages.unpack_demands(payload)


def _columns(dataset: Dataset) -> Columns:
    """Of a stored dataset, in the order in which its relation has them (queryd/relations.py)."""
    if dataset.spec.storage == Storage.STORAGE_NONE:
        return Columns({})  # its rows are scopes
    known = {folded(name): word for name, word in known_columns(dataset).items()}
    return Columns(known, tuple(known))
