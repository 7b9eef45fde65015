from __future__ import annotations

import logging
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakebase_provider.core import LakebaseClient
from lakebase_provider.core.errors import ClockSkewError, ControlPlaneError
from lakebase_provider.core.tokens.minters import AutoscalingOAuth, ProvisionedOAuth
from lakebase_provider.core.tokens.token import Token, TokenPolicy
from lakebase_provider.local import LocalLakebase
from tests.core.fake_clock import FakeClock
from tests.core.fake_workspace import Workspace, jwt


def token(lifetime: float = 3600.0) -> Token:
    return Token("canary-token", expires_at=1000.0 + lifetime, minted_at=1000.0, minted_elapsed=0.0)


def test_a_token_does_not_show_itself() -> None:
    assert "canary-token" not in repr(token())
    assert token().fingerprint in repr(token())
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(token())


@pytest.mark.parametrize(
    ("left", "state"), [(3600, "fresh"), (721, "fresh"), (719, "stale"), (121, "stale"), (119, "unusable")]
)
def test_states_of_an_hour(left: float, state: str) -> None:
    assert TokenPolicy().state(token(), seconds_left=left, chance=0.5) == state


def test_a_short_token_is_usable_for_three_quarters_of_its_life() -> None:
    policy = TokenPolicy()
    assert policy.state(token(8), seconds_left=2.1, chance=0.5) == "stale"
    assert policy.state(token(8), seconds_left=1.9, chance=0.5) == "unusable"


@pytest.mark.parametrize("life", [300, 480, 600, 900, 3600])
@pytest.mark.parametrize("chance", [0, 0.5, 1])
def test_there_is_time_to_renew_a_token_of_any_life(life: float, chance: float) -> None:
    policy, held = TokenPolicy(), token(life)
    window = policy.stale_seconds(held, chance) - policy.usable_seconds(held)
    assert window >= 60
    assert policy.stale_seconds(held, 0) - policy.stale_seconds(held, 1) == pytest.approx(0.05 * life)


def test_a_password_without_expiry_is_always_fresh() -> None:
    native = Token("p", expires_at=None, minted_at=0.0, minted_elapsed=0.0)
    left = native.seconds_left(wall=1e12, elapsed=1e12)
    assert TokenPolicy().state(native, seconds_left=left, chance=0.5) == "fresh"


@given(
    lifetime=st.floats(480, 7200),
    passed=st.floats(0, 14_400),
    wall_jump=st.floats(-3600, 3600),
    chance=st.floats(0, 1),
)
def test_no_usable_token_has_less_than_min_left(
    lifetime: float, passed: float, wall_jump: float, chance: float
) -> None:
    """Whatever the wall clock was set to, the elapsed time alone keeps a dying token from being used."""
    policy, held = TokenPolicy(), token(lifetime)
    left = held.seconds_left(wall=1000.0 + passed + wall_jump, elapsed=passed)
    if policy.state(held, seconds_left=left, chance=chance) != "unusable":
        assert lifetime - passed >= policy.min_left - 1e-6


def minter(workspace: Workspace) -> AutoscalingOAuth:
    return AutoscalingOAuth(workspace.as_control_plane(), "projects/p/branches/b/endpoints/e")


def left(token: Token, clock: FakeClock) -> float:
    return token.seconds_left(wall=clock.wall(), elapsed=clock.elapsed())


@pytest.mark.parametrize("behind", [-600, -90, 90, 600, 1800, 3600])
@pytest.mark.parametrize("life", [300, 900, 3600])
def test_a_wrong_clock_is_reported_once_and_tokens_are_judged_by_the_workspaces(
    clock: FakeClock, caplog: pytest.LogCaptureFixture, behind: float, life: float
) -> None:
    workspace = Workspace(lambda: clock.wall() + behind, lifetime=life)
    minting = minter(workspace)
    with caplog.at_level(logging.WARNING):
        tokens = [minting.mint(clock) for _ in range(3)]
    [warning] = caplog.messages
    assert f"{abs(behind)} s {'behind' if behind > 0 else 'ahead of'} the workspace's" in warning
    assert "NTP" in warning
    # Never more than the truth, and never so little that it would be renewed at once.
    assert life / 2 <= left(tokens[0], clock) <= life


@pytest.mark.parametrize("behind", [-59, 0, 59])
def test_clocks_that_nearly_agree_are_no_news(
    clock: FakeClock, caplog: pytest.LogCaptureFixture, behind: float
) -> None:
    token = minter(Workspace(lambda: clock.wall() + behind)).mint(clock)
    assert caplog.messages == []
    assert 3540 <= left(token, clock) <= 3600


def test_a_slow_answer_is_no_skew_and_no_longer_life(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = Workspace(clock.wall, takes=lambda: clock.advance(100))
    token = minter(workspace).mint(clock)
    assert caplog.messages == []
    assert left(token, clock) <= workspace.expiries[token.reveal()] - clock.wall()


def test_a_token_that_does_not_say_when_it_was_issued_lives_an_hour_at_most(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = Workspace(lambda: clock.wall() + 600, tells_issue=False)
    assert left(minter(workspace).mint(clock), clock) == 3600
    assert "600 s behind the workspace's" in caplog.text


def test_a_token_that_is_dead_by_both_views(clock: FakeClock) -> None:
    workspace = Workspace(lambda: clock.wall() - 3700, tells_issue=False)
    with pytest.raises(ClockSkewError, match="expired 100 s ago") as caught:
        minter(workspace).mint(clock)
    assert "NTP" in caught.value.remedy
    nonsense = Workspace(lambda: clock.wall() - 10, lifetime=-5)
    with pytest.raises(ClockSkewError, match="expired 15 s ago"):
        minter(nonsense).mint(clock)


@pytest.mark.parametrize(
    "value", ["opaque", "a.b", "a.!!!.c", jwt(iat="soon"), jwt(iat=float("inf")), jwt(exp=1), "a.W10.c"]
)
def test_a_token_of_any_form_is_taken(clock: FakeClock, value: str) -> None:
    workspace = Workspace(clock.wall)
    answer = {**workspace.endpoint_credential("e"), "token": value}
    workspace.endpoint_credential = lambda endpoint, **wishes: answer  # type: ignore[method-assign]
    token = minter(workspace).mint(clock)
    assert token.reveal() == value
    assert 3599 <= left(token, clock) <= 3600


@pytest.mark.parametrize(
    "answer", [{}, {"token": ""}, {"token": 1}, {"token": "t"}, {"token": "t", "expire_time": "soon"}]
)
def test_an_answer_that_makes_no_token(clock: FakeClock, answer: dict[str, object]) -> None:
    workspace = Workspace(clock.wall)
    workspace.endpoint_credential = lambda endpoint, **wishes: answer  # type: ignore[method-assign]
    with pytest.raises(ControlPlaneError):
        minter(workspace).mint(clock)


def test_lifetime_and_claims_are_passed_on(clock: FakeClock) -> None:
    workspace = Workspace(clock.wall)
    claims = [{"permission_set": "READ_ONLY", "resources": [{"table_name": "orders"}]}]
    AutoscalingOAuth(workspace.as_control_plane(), "e", ttl=900.0, claims=claims).mint(clock)
    ProvisionedOAuth(workspace.as_control_plane(), "i", claims=claims).mint(clock)
    ProvisionedOAuth(workspace.as_control_plane(), "i").mint(clock)
    assert workspace.wishes == [
        {"endpoint": "e", "ttl": "900s", "claims": claims},
        {"instance": "i", "claims": claims},
        {"instance": "i"},
    ]


def test_the_workspace_obeys_the_lifetime_that_is_asked_for(lakebase_env: LocalLakebase) -> None:
    client = LakebaseClient(lakebase_env.config(credential_ttl=300), claims=[{"permission_set": "READ_ONLY"}])
    assert 290 <= client.tokens.get().lifetime <= 300
    [body] = [r.body for r in lakebase_env.admin.requests() if r.path.endswith("/postgres/credentials")]
    assert body["claims"] == [{"permission_set": "READ_ONLY"}]


@pytest.mark.parametrize("ahead", [-7200, -600, 600, 7200])
def test_a_host_whose_clock_is_wrong_connects_and_does_not_mint_in_a_loop(
    lakebase_env: LocalLakebase, caplog: pytest.LogCaptureFixture, ahead: float
) -> None:
    lakebase_env.admin.set_clock_skew(-ahead)
    client = LakebaseClient(lakebase_env.config())
    for _ in range(3):
        client.connect().close()
    counters = lakebase_env.admin.counters()
    assert (counters.mints, counters.logins, counters.refused_logins) == (1, 3, 0)
    [warning] = [message for message in caplog.messages if "This host's clock" in message]
    assert ("s behind the workspace's" if ahead < 0 else "s ahead of the workspace's") in warning
