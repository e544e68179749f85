"""What a run of `bench.dispatch` was asked for."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """`peers` is the Python of the peers' environment."""

    quick: bool
    peers: Path

    @property
    def rounds(self) -> int:
        """How often a rate is measured, for its median."""
        return 1 if self.quick else 5

    def scaled(self, count: int, quick: int) -> int:
        return quick if self.quick else count
