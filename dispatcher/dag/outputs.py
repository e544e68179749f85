"""Checks of what a job produces: storage, columns, cursor, and what a new artifact does to earlier ones."""

from dispatcher.dag.messages import enum_word
from dispatcher.dag.operators import Operator
from dispatcher.dag.problems import Findings, Path, clip, listed
from kernel.column_types import parse_column_type
from traceapi.types.v1.dag_pb2 import OutputSpec, Storage, UpdateMode, Writers
from traceapi.types.v1.scope_pb2 import CursorType

# Types of a cursor's column, by the cursor's type.
_CURSOR_COLUMNS = {
    CursorType.CURSOR_TYPE_INT64: ("int64", "int32", "int16", "int8", "uint32", "uint16", "uint8"),
    CursorType.CURSOR_TYPE_TIMESTAMP: ("timestamp",),
    CursorType.CURSOR_TYPE_STRING: ("string",),
}
# What an output declares of which nothing is stored.
_OF_VIRTUAL = frozenset({"schema", "column_order", "description", "column_descriptions"})
# What several writers of a dataset may say each in its own way.
_OF_EACH_WRITER = frozenset({"column_order", "description", "column_descriptions", "writers"})


def check_output(path: Path, output: OutputSpec, operator: Operator | None, findings: Findings) -> None:
    """Reports what an output declares that its producer cannot give. No operator stands for a virtual node."""
    _check_schema(path, output, findings)
    _check_column_order(path, output, findings)
    if operator is None:
        for field, _ in output.ListFields():
            if field.name not in _OF_VIRTUAL:
                message = f"a virtual dataset is never stored, so `{field.name}` means nothing"
                findings.at_key((*path, field.name), message, "take it out")
        return
    storage = output.storage or operator.storages[0]
    if storage == Storage.STORAGE_POSTGRES:
        message = "`postgres` comes with a later release"
        findings.at_value((*path, "storage"), message, f"write `{_storage_words(operator)[0]}`")
        return
    if storage not in operator.storages:
        message = f"`{operator.name}` does not write `{enum_word(Storage.DESCRIPTOR, storage)}`"
        findings.at_value((*path, "storage"), message, f"write {listed(_storage_words(operator))}")
        return
    _check_rows(path, output, storage, findings)


def _storage_words(operator: Operator) -> list[str]:
    return [enum_word(Storage.DESCRIPTOR, storage) for storage in operator.storages]


def _check_rows(path: Path, output: OutputSpec, storage: Storage.ValueType, findings: Findings) -> None:
    if storage == Storage.STORAGE_NONE:
        for key in ("schema", "update", "unique_key", "sort"):
            if getattr(output, key):
                findings.at_key((*path, key), f"`storage: none` keeps no rows, so `{key}` means nothing", "take it out")
        return
    append = output.update == UpdateMode.UPDATE_MODE_APPEND
    if append and not output.unique_key and not findings.broken((*path, "unique_key")):
        findings.at_value(
            (*path, "update"), "`append` needs the columns that tell rows apart", "add `unique_key: [...]`"
        )
    if output.unique_key and not append:
        findings.at_key((*path, "unique_key"), "`unique_key` goes with `update: append`", "add that, or take it out")


def _check_schema(path: Path, output: OutputSpec, findings: Findings) -> None:
    spellings: dict[str, str] = {}
    broken = False
    for column in sorted(output.schema, key=lambda name: (findings.places.key((*path, "schema", name)), name)):
        here: Path = (*path, "schema", column)
        if not column or any(ord(character) < 32 for character in column):
            findings.at_key(here, "the column's name is empty or holds a control character", "write a name")
        other = spellings.setdefault(column.casefold(), column)
        if other != column:
            message = f"the columns `{clip(column)}` and `{clip(other)}` differ in upper and lower case only"
            findings.at_key(here, message, "give one of them another name")
        try:
            parse_column_type(output.schema[column])
        except ValueError as error:
            if not findings.broken(here):
                findings.at_value(
                    here, clip(str(error), 400), "declare the column with one of the types of the contract"
                )
            broken = True
    if broken:
        findings.mark_broken((*path, "schema"))


def _check_column_order(path: Path, output: OutputSpec, findings: Findings) -> None:
    """The order is one of exactly the declared columns."""
    if not output.column_order or findings.broken((*path, "schema")) or findings.broken((*path, "column_order")):
        return
    if not output.schema:
        message = "`column_order` orders the columns of `schema`, and none are declared"
        findings.at_key((*path, "column_order"), message, "declare them, or take it out")
        return
    seen: set[str] = set()
    for index, column in enumerate(output.column_order):
        here: Path = (*path, "column_order", index)
        if column not in output.schema:
            _missing_column(here, column, output, findings)
        elif column in seen:
            findings.at_value(here, f"the column `{clip(column)}` stands twice in the order", "name it once")
        seen.add(column)
    if missing := sorted(output.schema.keys() - seen):
        shown = ", ".join(f"`{clip(column)}`" for column in missing)
        findings.at_key((*path, "column_order"), f"the order leaves out {shown}", "name every column, or take it out")


def check_columns(path: Path, output: OutputSpec, findings: Findings) -> None:
    """Reports columns that an effective output names and its schema, where it is known, lacks."""
    if not output.schema or findings.broken((*path, "schema")):
        return
    for key in ("unique_key", "sort"):
        for index, column in enumerate(getattr(output, key)):
            if column not in output.schema:
                _missing_column((*path, key, index), column, output, findings)
    for column in sorted(output.column_descriptions):
        if column not in output.schema:
            remedy = findings.suggestion(column, sorted(output.schema), "describe a column that there is")
            findings.at_key(
                (*path, "column_descriptions", column), f"the dataset has no column `{clip(column)}`", remedy
            )
    column = output.cursor.column
    if not column or output.storage == Storage.STORAGE_NONE or findings.broken((*path, "cursor")):
        return
    if column not in output.schema:
        _missing_column((*path, "cursor", "column"), column, output, findings)
        return
    wanted = _CURSOR_COLUMNS.get(output.cursor.type, ())
    found = parse_column_type(output.schema[column]).canonical
    if wanted and found not in wanted:
        message = f"the cursor's column `{clip(column)}` is {found}, and the cursor {wanted[0]}"
        findings.at_value(
            (*path, "cursor", "column"), message, f"make the column {listed(wanted)}, or change the cursor"
        )


def _missing_column(path: Path, column: str, output: OutputSpec, findings: Findings) -> None:
    remedy = findings.suggestion(
        column, sorted(output.schema), f"add it to the columns, or state another in `{path[4]}`"
    )
    findings.at_value(path, f"the dataset has no column `{clip(column)}`", remedy)


def check_same_declaration(path: Path, first: OutputSpec, second: OutputSpec, findings: Findings) -> None:
    """Reports where a second producer of a dataset declares something else than the first, and both may write it."""
    if {first.writers, second.writers} != {Writers.WRITERS_MANY}:
        return  # that is reported, and one of the two declarations will have to go
    for field in OutputSpec.DESCRIPTOR.fields:
        if field.name in _OF_EACH_WRITER or findings.broken((*path, field.name)):
            continue
        if getattr(first, field.name) != getattr(second, field.name):
            message = f"the jobs that produce `{clip(str(path[-1]))}` declare different values of `{field.name}`"
            findings.at_key((*path, field.name), message, "declare the same in each")
