"""When a program that died is started again: with growing pauses, and not for ever. Rules only: time is handed in."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Seconds throughout."""

    first_pause: float = 0.5
    longest_pause: float = 15.0
    limit: int = 6
    """Restarts in a row that may fail; a program that ran for `settled_after` starts afresh."""
    settled_after: float = 60.0


@dataclass(slots=True)
class RestartHistory:
    """The recent deaths of one program."""

    policy: RestartPolicy = field(default_factory=RestartPolicy)
    deaths: int = 0

    def died(self, *, ran_for: float) -> float | None:
        """How long to wait before the next start; None when it has died too often in a row."""
        self.deaths = 1 if ran_for >= self.policy.settled_after else self.deaths + 1
        if self.deaths > self.policy.limit:
            return None
        return float(min(self.policy.first_pause * 2 ** (self.deaths - 1), self.policy.longest_pause))
