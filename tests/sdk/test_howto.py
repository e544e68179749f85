"""The code of docs/howto/write_an_operator.md is run as it stands there, and its tests pass."""

import re
from pathlib import Path
from typing import Any

_PAGE = Path(__file__).parents[2] / "docs" / "howto" / "write_an_operator.md"


def test_the_pages_operators_pass_the_pages_tests() -> None:
    blocks = re.findall(r"```python\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile("\n".join(blocks), str(_PAGE), "exec"), names)  # noqa: S102 -- it is our own page
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert len(tests) == 3
    for test in tests:
        test()
