"""A clock that tests turn by hand."""


class FakeClock:
    """Wall and elapsed time that pass only when told to, or when somebody sleeps."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now
        self.passed = 0.0
        self.slept: list[float] = []

    def wall(self) -> float:
        return self.now

    def elapsed(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.passed += seconds
