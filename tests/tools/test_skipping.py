"""The plugin that makes skips fail in CI, run on small suites of its own."""

import pytest

pytest_plugins = ["pytester"]

SUITE = """
import pytest

@pytest.mark.skip(reason="node is not installed")
def test_marked():
    pass

def test_called():
    pytest.skip("fauxqs is not installed")

@pytest.mark.xfail(reason="known", strict=True)
def test_expected_to_fail():
    assert False
"""


def run(pytester: pytest.Pytester) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "tests.skipping", "-p", "no:asyncio")


def test_skips_stay_skips_without_the_variable(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRACE_TEST_REQUIRE_ALL", raising=False)
    pytester.makepyfile(SUITE)
    run(pytester).assert_outcomes(skipped=2, xfailed=1)


def test_skips_fail_and_name_what_is_missing(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACE_TEST_REQUIRE_ALL", "1")
    pytester.makepyfile(SUITE)
    result = run(pytester)
    result.assert_outcomes(failed=1, errors=1, xfailed=1)  # a mark is looked at in the set-up
    result.stdout.fnmatch_lines(["*because: node is not installed*", "*because: fauxqs is not installed*"])


def test_a_module_skipped_at_collection_fails_too(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACE_TEST_REQUIRE_ALL", "1")
    pytester.makepyfile("import pytest\npytest.importorskip('a_module_that_is_not_there')\n")
    result = run(pytester)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*because: could not import 'a_module_that_is_not_there'*"])
