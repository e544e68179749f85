"""How often a server looks for garbage that counting references does not free."""

import gc

_YOUNG = 50_000
_MIDDLE, _OLD = 20, 50


def collect_seldom() -> None:
    """A batch on the hot path makes tens of thousands of objects and frees them by itself. At Python's default of 700
    they are gone through dozens of times, and nothing is found; cycles, which errors leave behind, can wait.
    """
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
