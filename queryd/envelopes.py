"""What precedes the body of an Arrow message in the message of gRPC that carries it, as bytes of protobuf.

Written by hand, because protobuf would copy every batch twice more (queryd/engine/answers.py). A header here is in
Arrow's encapsulated form: a marker and its length, four bytes each, then the header itself.
"""

_MARKER_AND_LENGTH = 8
_ARROW_IPC_TAG = b"\x12"  # field 2 of QueryResponse
_HEADER_TAG, _METADATA_TAG, _BODY_TAG = b"\x12", b"\x1a", b"\xc2\x3e"  # fields 2, 3 and 1000 of FlightData


def of_query_response(header: bytes, body_bytes: int) -> bytes:
    """Of a QueryResponse with the whole message in `arrow_ipc`."""
    return b"".join([_ARROW_IPC_TAG, _varint(len(header) + body_bytes), header])


def of_flight_data(header: bytes, body_bytes: int, app_metadata: bytes = b"") -> bytes:
    """Of a FlightData, which takes the header without what precedes it."""
    bare = memoryview(header)[_MARKER_AND_LENGTH:]
    parts: list[bytes | memoryview] = [_HEADER_TAG, _varint(len(bare)), bare]
    if app_metadata:
        parts += [_METADATA_TAG, _varint(len(app_metadata)), app_metadata]
    return b"".join([*parts, _BODY_TAG, _varint(body_bytes)])


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)
