"""How many examples a property is tried with: a few in `make test`, many in `make test-slow`.

A test of a property says so with ``pytest.mark.deep``, by which `make test-slow` finds it.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

#: The profile of hypothesis in which properties are tried with many examples.
FULL = "full"
for _name in ("default", FULL):
    # How fast examples are made says what else the machine does, and nothing of what is tested.
    settings.register_profile(
        _name, settings.get_profile("default"), suppress_health_check=[HealthCheck.too_slow]
    )
if settings.get_current_profile_name() == "default":
    settings.load_profile("default")


def examples(few: int, many: int) -> int:
    """The number of examples that this run tries."""
    return many if settings.get_current_profile_name() == FULL else few
