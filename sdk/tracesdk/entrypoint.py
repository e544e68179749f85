"""From the name of an operator's code to the code itself: a function of a task, or a class of `operators.py`."""

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tracesdk.errors import OperatorError
from tracesdk.job import Job
from tracesdk.operators import Operator, OrderedOperator, Source
from tracesdk.task import Task
from tracesdk.unit import Rows

Code = Callable[[Task], Rows | None] | OrderedOperator | Source


def load_code(entrypoint: str, job: Job) -> Code:
    """The code that `module:name` names, made for the job. Raises whatever the module's import raises."""
    module_name, separator, name = entrypoint.partition(":")
    if not separator:
        raise OperatorError(f"the entrypoint {entrypoint!r} must have the form module:function")
    module = importlib.import_module(module_name)
    found = getattr(module, name, None)
    if found is None:
        raise OperatorError(f"the module {module_name!r} has no {name!r}; the entrypoint is {entrypoint!r}")
    return made_for(found, job)


def made_for(found: object, job: Job) -> Code:
    """What runs the tasks: the function as it is, or an instance of the class."""
    if isinstance(found, type) and issubclass(found, Operator):
        return found(job).process
    if isinstance(found, type) and issubclass(found, OrderedOperator | Source):
        return found(job)
    if isinstance(found, OrderedOperator | Source):
        return found
    if callable(found):
        function: Callable[[Task], Rows | None] = found
        return function
    raise OperatorError(f"{found!r} is neither a function nor a class that tracesdk runs")


def bundle_folders(local_paths: Mapping[str, str]) -> list[str]:
    """The folders into which bundles were unpacked."""
    paths = [Path(path) for path in local_paths.values()]
    return sorted({str(path if path.is_dir() else path.parent) for path in paths})


def make_importable(entrypoint: str, local_paths: Mapping[str, str]) -> None:
    """Puts the folder that holds the entrypoint's module first on Python's path."""
    top = entrypoint.partition(":")[0].partition(".")[0]
    for folder in bundle_folders(local_paths):
        if (Path(folder) / f"{top}.py").is_file() or (Path(folder) / top).is_dir():
            sys.path.insert(0, folder)
    sys.dont_write_bytecode = True  # bundles are read-only
