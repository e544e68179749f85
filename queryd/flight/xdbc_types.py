"""The types of columns as ODBC and JDBC know them: what GetXdbcTypeInfo tells."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

_NULLABLE, _SEARCHABLE = 1, 3
_DATETIME = 9

_COLUMNS: list["pa.Field[Any]"] = [
    pa.field("type_name", pa.string(), nullable=False),
    pa.field("data_type", pa.int32(), nullable=False),
    pa.field("column_size", pa.int32()),
    pa.field("literal_prefix", pa.string()),
    pa.field("literal_suffix", pa.string()),
    pa.field("create_params", pa.list_(pa.field("item", pa.string(), nullable=False))),
    pa.field("nullable", pa.int32(), nullable=False),
    pa.field("case_sensitive", pa.bool_(), nullable=False),
    pa.field("searchable", pa.int32(), nullable=False),
    pa.field("unsigned_attribute", pa.bool_()),
    pa.field("fixed_prec_scale", pa.bool_(), nullable=False),
    pa.field("auto_increment", pa.bool_()),
    pa.field("local_type_name", pa.string()),
    pa.field("minimum_scale", pa.int32()),
    pa.field("maximum_scale", pa.int32()),
    pa.field("sql_data_type", pa.int32(), nullable=False),
    pa.field("datetime_subcode", pa.int32()),
    pa.field("num_prec_radix", pa.int32()),
    pa.field("interval_precision", pa.int32()),
]
TYPE_INFO = pa.schema(_COLUMNS)


@dataclass(frozen=True, slots=True)
class _Type:
    """`number` is of the list that ODBC and JDBC share; `size` in digits, bits, letters or bytes, as they count it."""

    name: str
    number: int
    size: int | None = None
    quote: str | None = None
    unsigned: bool | None = None
    radix: int | None = None
    scale: int | None = None
    subcode: int | None = None


_TYPES = (
    _Type("BOOLEAN", -7, 1),
    _Type("TINYINT", -6, 3, unsigned=False, radix=10),
    _Type("UTINYINT", -6, 3, unsigned=True, radix=10),
    _Type("BIGINT", -5, 19, unsigned=False, radix=10),
    _Type("UBIGINT", -5, 20, unsigned=True, radix=10),
    _Type("BLOB", -3, quote="'"),
    _Type("DECIMAL", 3, 38, unsigned=False, radix=10, scale=38),
    _Type("INTEGER", 4, 10, unsigned=False, radix=10),
    _Type("UINTEGER", 4, 10, unsigned=True, radix=10),
    _Type("SMALLINT", 5, 5, unsigned=False, radix=10),
    _Type("USMALLINT", 5, 5, unsigned=True, radix=10),
    _Type("FLOAT", 7, 24, unsigned=False, radix=2),
    _Type("DOUBLE", 8, 53, unsigned=False, radix=2),
    _Type("VARCHAR", 12, quote="'"),
    _Type("DATE", 91, 10, quote="'", subcode=1),
    _Type("TIMESTAMP WITH TIME ZONE", 93, 32, quote="'", subcode=5),
)


def type_info(number: int | None) -> pa.Table:
    """All types, or those of one number."""
    chosen = sorted(
        (type_ for type_ in _TYPES if number in (None, type_.number)), key=lambda type_: (type_.number, type_.name)
    )
    rows = [
        {
            "type_name": type_.name,
            "data_type": type_.number,
            "column_size": type_.size,
            "literal_prefix": type_.quote,
            "literal_suffix": type_.quote,
            "create_params": None,
            "nullable": _NULLABLE,
            "case_sensitive": type_.name == "VARCHAR",
            "searchable": _SEARCHABLE,
            "unsigned_attribute": type_.unsigned,
            "fixed_prec_scale": False,
            "auto_increment": None if type_.unsigned is None else False,
            "local_type_name": type_.name,
            "minimum_scale": None if type_.scale is None else 0,
            "maximum_scale": type_.scale,
            "sql_data_type": type_.number if type_.subcode is None else _DATETIME,
            "datetime_subcode": type_.subcode,
            "num_prec_radix": type_.radix,
            "interval_precision": None,
        }
        for type_ in chosen
    ]
    return pa.Table.from_pylist(rows, schema=TYPE_INFO)
