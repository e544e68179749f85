"""Ids ascend, whatever the clock does, and never repeat."""

import os
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from kernel.ids import Uuid7Source, new_id


def constant(bits: int) -> int:
    """Random bits that are all ones."""
    return (1 << bits) - 1


def test_an_id_is_a_canonical_uuid_of_version_7() -> None:
    text = new_id()
    parsed = uuid.UUID(text)
    assert (str(parsed), parsed.version, parsed.variant) == (text, 7, uuid.RFC_4122)


def test_an_id_begins_with_its_time() -> None:
    source = Uuid7Source(clock=lambda: 0x0123456789AB)
    assert uuid.UUID(source()).int >> 80 == 0x0123456789AB


def test_ids_ascend_within_a_millisecond() -> None:
    source = Uuid7Source(clock=lambda: 1_700_000_000_000)
    made = [source() for _ in range(10_000)]
    assert made == sorted(set(made))


def test_ids_ascend_when_the_clock_steps_back() -> None:
    times: Iterator[int] = iter([1000, 900, 1001, 5, 1001])
    source = Uuid7Source(clock=lambda: next(times))
    made = [source() for _ in range(5)]
    assert made == sorted(set(made))


def test_ids_ascend_when_a_millisecond_is_used_up() -> None:
    source = Uuid7Source(clock=lambda: 1000, seed=lambda: constant)
    first, second = source(), source()
    assert first < second
    assert uuid.UUID(second).int >> 80 == 1001
    assert uuid.UUID(second).version == 7


def test_threads_get_different_ids() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            batches = threads.map(lambda _: [new_id() for _ in range(2_000)], range(8))
            made = [text for batch in batches for text in batch]
    finally:
        sys.setswitchinterval(before)
    assert len(set(made)) == len(made) == 16_000


def test_a_forked_process_makes_other_ids() -> None:
    source = Uuid7Source(clock=lambda: 1_700_000_000_000)
    source()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, source().encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 36).decode()
    os.close(reading)
    os.close(writing)
    # Had the child gone on counting, it would be within a step of this one.
    assert abs(uuid.UUID(theirs).int - uuid.UUID(source()).int) > 1 << 34
