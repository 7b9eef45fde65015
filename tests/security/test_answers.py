"""What the workspace answers, or whoever answers in its place: nothing of it is believed unchecked."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakebase_provider.core import LakebaseConfig, LakebaseError
from lakebase_provider.core.config.allowed_hosts import ALLOW_LOOPBACK, allowed_origin
from lakebase_provider.core.connect.target import Target, TargetResolver
from lakebase_provider.core.errors import ConfigError, ControlPlaneError
from lakebase_provider.core.tokens.minters import minter_for
from lakebase_provider.core.workspace.answers import Answer, parse_json
from lakebase_provider.core.workspace.rest import RestTransport
from lakebase_provider.core.workspace.sdk import SdkTransport
from lakebase_provider.core.workspace.workspace import ControlPlane, Transport
from tests.core.fake_clock import FakeClock
from tests.core.fake_workspace import jwt
from tests.depth import examples
from tests.security.hostile_workspace import (
    CREDENTIALS,
    DISCOVERY,
    ENDPOINT,
    INSTANCE,
    ME,
    OAUTH_SERVER,
    RESOURCE,
    SECRET,
    TOKEN,
    HostileWorkspace,
    honest_answers,
    reply,
)

WAYS: dict[str, Callable[[LakebaseConfig], Transport]] = {"rest": RestTransport, "sdk": SdkTransport}
AS_SENT = base64.b64encode(f"client:{SECRET}".encode()).decode()


@pytest.fixture(autouse=True)
def _no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "none"))


@pytest.fixture
def workspace() -> Iterator[HostileWorkspace]:
    with HostileWorkspace() as server:
        yield server


@pytest.fixture(params=["another address", "another port"])
def elsewhere(request: pytest.FixtureRequest) -> Iterator[HostileWorkspace]:
    with HostileWorkspace("127.0.0.2" if request.param == "another address" else "127.0.0.1") as server:
        yield server


def by(way: str, config: LakebaseConfig) -> ControlPlane:
    control_plane = ControlPlane(config)
    control_plane._transport = WAYS[way](config)
    return control_plane


def saw_the_secret(*servers: HostileWorkspace) -> bool:
    return any(text in seen for server in servers for seen in server.seen for text in (SECRET, AS_SENT))


WRONG_HOSTS = [
    "evil.example",
    "evil.example:5432",
    "ep.databricks.com,evil.example",
    "ep.databricks.com evil.example",
    "evil.example/.databricks.com",
    "ep.databricks.com@evil.example",
    "evil.example\\.databricks.com",
    "evil.example\x00.databricks.com",
    "/var/run/postgresql",
    "169.254.169.254",
    "0x7f000001.",
    "databricks.com.evil.example",
    "evildatabricks.com",
    "ep.databricks.com\n",
    5432,
    True,
    ["ep.databricks.com"],
    {"host": "ep.databricks.com"},
]


@pytest.mark.parametrize("host", WRONG_HOSTS, ids=repr)
@pytest.mark.parametrize(
    ("path", "field", "target"),
    [
        (RESOURCE, "status.hosts.host", {}),
        (RESOURCE, "status.hosts.read_only_host", {"access": "read_only"}),
        (INSTANCE, "read_write_dns", {"endpoint": None, "instance": "i"}),
        (INSTANCE, "read_only_dns", {"endpoint": None, "instance": "i", "access": "read_only"}),
    ],
)
def test_a_host_that_the_workspace_names_is_held_to_the_grammar_of_settings(
    workspace: HostileWorkspace, path: str, field: str, target: dict[str, Any], host: object
) -> None:
    *above, name = field.split(".")
    place = workspace.answers[path]
    for key in above:
        place = place[key]
    place[name] = host
    config = workspace.config(**target)
    with pytest.raises(ControlPlaneError) as caught:
        TargetResolver(config, ControlPlane(config)).resolve(5)
    assert not caught.value.retryable
    assert f"'{field}'" in caught.value.message
    assert str(target.get("instance", ENDPOINT)) in caught.value.message
    if isinstance(host, str):
        assert "LAKEBASE_ALLOWED_HOST_SUFFIXES" in caught.value.remedy


def test_a_host_that_the_workspace_names_is_taken_in_its_plain_form(workspace: HostileWorkspace) -> None:
    workspace.answers[RESOURCE]["status"]["hosts"]["host"] = "EP.DataBricks.com."
    config = workspace.config()
    assert TargetResolver(config, ControlPlane(config)).resolve(5).host == "ep.databricks.com"


def test_loopback_is_refused_where_the_deployment_does_not_allow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOW_LOOPBACK)
    monkeypatch.setattr("lakebase_provider.core.config.allowed_hosts._servers_here", set())
    with pytest.raises(ControlPlaneError, match="'host'") as caught:
        Answer({"host": "localhost"}, "it").host("host")
    assert ALLOW_LOOPBACK in caught.value.remedy


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("field", ["oidc_endpoint", "token_endpoint"])
def test_the_client_secret_goes_to_the_workspace_alone(
    workspace: HostileWorkspace, elsewhere: HostileWorkspace, way: str, field: str
) -> None:
    if field == "oidc_endpoint":
        workspace.answers[DISCOVERY]["oidc_endpoint"] = f"{elsewhere.url}/oidc"
    # An SDK that does not read databricks-config asks this one.
    workspace.answers[OAUTH_SERVER]["token_endpoint"] = elsewhere.url + TOKEN
    with pytest.raises(ControlPlaneError, match="not to the workspace") as caught:
        by(way, workspace.config()).endpoint_credential(ENDPOINT)
    assert not caught.value.retryable
    assert not saw_the_secret(workspace, elsewhere)


def test_what_discovery_says_wrongly_is_not_left_to_the_sdk(
    workspace: HostileWorkspace, elsewhere: HostileWorkspace
) -> None:
    workspace.answers[OAUTH_SERVER]["token_endpoint"] = elsewhere.url + TOKEN
    with pytest.raises(ControlPlaneError, match="token_endpoint"):
        ControlPlane(workspace.config()).endpoint_credential(ENDPOINT)
    assert not any("databricks-sdk" in request for request in workspace.seen + elsewhere.seen)
    assert not saw_the_secret(workspace, elsewhere)


def test_the_second_look_of_the_sdk_is_checked_as_the_first(
    workspace: HostileWorkspace, elsewhere: HostileWorkspace
) -> None:
    looks = iter([workspace.url, elsewhere.url, elsewhere.url, elsewhere.url])

    def answer(handler: BaseHTTPRequestHandler) -> None:
        url = next(looks)
        reply(handler, 200, {"token_endpoint": url + TOKEN, "authorization_endpoint": url + "/a"})

    workspace.answers[OAUTH_SERVER] = answer
    transport = SdkTransport(workspace.config())
    for _ in range(3):
        try:
            transport.send("a credential", "POST", CREDENTIALS, {"endpoint": ENDPOINT})
        except LakebaseError:
            transport._api = None
    assert not saw_the_secret(elsewhere)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("way", WAYS)
def test_no_redirect_takes_a_request_elsewhere(
    workspace: HostileWorkspace, elsewhere: HostileWorkspace, way: str, status: int
) -> None:
    workspace.answers[CREDENTIALS] = lambda handler: reply(
        handler, status, {}, Location=elsewhere.url + CREDENTIALS
    )
    config = workspace.config(client_id=None, client_secret=None, token="a-token", user="u")
    with pytest.raises(LakebaseError):
        by(way, config).endpoint_credential(ENDPOINT)
    assert elsewhere.seen == []


@pytest.mark.parametrize("way", WAYS)
def test_no_redirect_of_the_token_endpoint_is_shown_the_secret(
    workspace: HostileWorkspace, elsewhere: HostileWorkspace, way: str
) -> None:
    workspace.answers[TOKEN] = lambda handler: reply(handler, 307, {}, Location=elsewhere.url + TOKEN)
    elsewhere.answers.clear()
    with pytest.raises(LakebaseError):
        by(way, workspace.config()).endpoint_credential(ENDPOINT)
    assert not saw_the_secret(elsewhere)


@pytest.mark.parametrize("place", ["profile", "environment"])
def test_the_host_that_the_sdk_finds_is_checked_before_anything_is_sent(
    workspace: HostileWorkspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    for name, value in {"host": workspace.url, "client_id": "client", "client_secret": SECRET}.items():
        monkeypatch.delenv(f"DATABRICKS_{name.upper()}", raising=False)
        if place == "environment":
            monkeypatch.setenv(f"DATABRICKS_{name.upper()}", value)
    profile = tmp_path / "databrickscfg"
    profile.write_text(f"[p]\nhost={workspace.url}\nclient_id=client\nclient_secret={SECRET}\n")
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(profile))
    config = LakebaseConfig(endpoint=ENDPOINT, user="u", profile="p" if place == "profile" else None)
    SdkTransport(config).send("a credential", "POST", CREDENTIALS, {"endpoint": ENDPOINT})
    assert saw_the_secret(workspace)
    workspace.seen.clear()
    monkeypatch.delenv(ALLOW_LOOPBACK)
    monkeypatch.setattr("lakebase_provider.core.config.allowed_hosts._servers_here", set())
    with pytest.raises(ConfigError, match="databricks-sdk found"):
        SdkTransport(config).send("a credential", "POST", CREDENTIALS, {"endpoint": ENDPOINT})
    assert workspace.seen == []


ORIGIN = allowed_origin("https://w.cloud.databricks.com")


@pytest.mark.parametrize(
    "url",
    [
        "https://w.cloud.databricks.com/oidc/v1/token",
        "https://W.Cloud.Databricks.COM/oidc/v1/token",
        "HTTPS://w.cloud.databricks.com:443/oidc/v1/token",
        "https://w.cloud.databricks.com./oidc/v1/token/",
    ],
)
def test_the_same_origin_in_other_words(url: str) -> None:
    found = Answer({"u": url}, "it").url_at(ORIGIN, "u")
    assert found == "https://w.cloud.databricks.com/oidc/v1/token"


@pytest.mark.parametrize(
    "url",
    [
        "http://w.cloud.databricks.com/oidc",
        "https://w.cloud.databricks.com:8443/oidc",
        "https://w.cloud.databricks.com@evil.example/oidc",
        "https://evil.example\\@w.cloud.databricks.com/oidc",
        "https://w.cloud.databricks.com\\.evil.example/oidc",
        "https://w.cloud.databricks.com/../api",
        "https://w.cloud.databricks.com/oidc?x=y",
        "https://w.cloud.databricks.com/oidc#",
        "https://w.cloud.databricks.com/%2e%2e/api",
        "https://w.cloud.databricks.com//evil.example/oidc",
        "https://other.cloud.databricks.com/oidc",
        "https://evil.example/oidc",
        "//evil.example/oidc",
        "w.cloud.databricks.com/oidc",
        "ftp://w.cloud.databricks.com/oidc",
        "https://w.cloud.databricks.com/oidc\r\nX: y",
        " https://w.cloud.databricks.com/oidc",
        "https://w.cloud.databricks.com:0443000/oidc",
        "https:///oidc",
        "/oidc",
        7,
    ],
)
def test_another_origin_or_no_plain_url(url: object) -> None:
    with pytest.raises(ControlPlaneError, match="'u'"):
        Answer({"u": url}, "it").url_at(ORIGIN, "u")


@pytest.mark.parametrize(
    "name",
    ["../../fs/files/Volumes/x.json#", "a/b", "a?b", "a#b", "..", "a%2fb", "", "a b", "a\n", "é", "a" * 64],
)
def test_no_id_leads_to_another_path(workspace: HostileWorkspace, name: str) -> None:
    control_plane = ControlPlane(workspace.config())
    with pytest.raises(ConfigError, match="instance"):
        control_plane.instance(name)
    for endpoint in (f"projects/{name}/branches/b/endpoints/e", f"projects/p/branches/b/endpoints/{name}"):
        with pytest.raises(ConfigError, match="endpoint"):
            control_plane.endpoint(endpoint)
    assert workspace.seen == []


WRONG_TOKENS = [
    "canary\nX: y",
    "canary\x00",
    "canary blank",
    "canäry",
    "canary" * 20_000,
    7,
    True,
    ["canary"],
]


@pytest.mark.parametrize("value", WRONG_TOKENS, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize(("path", "field"), [(CREDENTIALS, "token"), (TOKEN, "access_token")])
def test_a_token_is_printable_text_and_no_error_repeats_it(
    workspace: HostileWorkspace, path: str, field: str, value: object
) -> None:
    workspace.answers[path][field] = value
    config = workspace.config()
    with pytest.raises(ControlPlaneError, match=f"'{field}'") as caught:
        minter_for(config, ControlPlane(config)).mint(FakeClock())
    assert "can" not in str(caught.value)


def test_a_workspace_token_with_a_line_in_it_is_not_repeated(workspace: HostileWorkspace) -> None:
    config = workspace.config(client_id=None, client_secret=None, token="good", user="u")
    object.__setattr__(config, "token", type(config.token)("canary\r\nX: y"))  # type: ignore[call-arg,misc]
    with pytest.raises(ConfigError, match="'token'") as caught:
        RestTransport(config).send("it", "GET", ME)
    assert "canary" not in str(caught.value)
    assert workspace.seen == []


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        *((TOKEN, "expires_in", value) for value in (1e308, -1, 0, True, None, "soon", "9" * 11, [1])),
        *((DISCOVERY, "workspace_id", value) for value in ("1\r\nX: y", "abc", -1, 1.5, True, "1" * 21, {})),
        *((DISCOVERY, "oidc_endpoint", value) for value in (7, ["u"], "nonsense")),
        *((ME, "userName", value) for value in (None, "", 7, "a\x00b", "a\nb", "\ud800", "a" * 321, {})),
        *((CREDENTIALS, "expire_time", value) for value in (None, "soon", 7, "1" * 65, "٢٠٢٦-01-01", [])),
    ],
)
def test_a_field_of_another_kind_is_a_typed_error(
    workspace: HostileWorkspace, path: str, field: str, value: object
) -> None:
    workspace.answers[path][field] = value
    config = workspace.config()
    control_plane = ControlPlane(config)
    minter = minter_for(config, control_plane)
    with pytest.raises(ControlPlaneError, match=f"'{field}'") as caught:
        _ = control_plane.current_user_name(), minter.mint(FakeClock())
    assert not caught.value.retryable


def test_a_token_whose_life_has_no_end_is_refused(workspace: HostileWorkspace) -> None:
    clock = FakeClock()
    token = jwt(iat=int(clock.wall()))
    workspace.answers[CREDENTIALS] = {"token": token, "expire_time": "9999-12-31T23:59:59Z"}
    config = workspace.config()
    with pytest.raises(ControlPlaneError, match="'expire_time'"):
        minter_for(config, ControlPlane(config)).mint(clock)


@pytest.mark.parametrize(
    "payload", ['{"iat": 1' + "0" * 4000 + "}", "[" * 40_000, '{"iat": NaN}', '{"iat": 1e999}', "[]"]
)
def test_the_claims_of_a_token_break_nothing(workspace: HostileWorkspace, payload: str) -> None:
    claims = base64.urlsafe_b64encode(payload.encode()).decode().rstrip("=")
    workspace.answers[CREDENTIALS]["token"] = f"head.{claims}.signature"
    config = workspace.config()
    assert minter_for(config, ControlPlane(config)).mint(FakeClock()).lifetime == 3600


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        "1" * 100_000,
        '{"a": 1, "a": 2}',
        "NaN",
        "-Infinity",
        b"\xff",
        "{",
        "",
    ],
    ids=lambda text: repr(text)[:12],
)
def test_json_that_no_workspace_sends(text: bytes | str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_json(text)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("message", ["project" * 100_000, "a\x1b[2Jb\x00c", {"a": ["b"] * 100}])
def test_what_an_error_repeats_is_short_and_printable(
    workspace: HostileWorkspace, way: str, message: object
) -> None:
    workspace.answers[CREDENTIALS] = lambda handler: reply(
        handler, 400, {"error_code": "BAD_REQUEST", "message": message}
    )
    with pytest.raises(LakebaseError) as caught:
        by(way, workspace.config()).endpoint_credential(ENDPOINT)
    assert len(caught.value.message) < 1200
    assert caught.value.message.isprintable()


# --- Arbitrary values in place of each field ---------------------------------------------------------------

URL = "https://w.cloud.databricks.com"
HONEST = honest_answers(URL)


def _places(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _places(inner, (*path, key))


PLACES = [(route, place) for route, answer in HONEST.items() for place in _places(answer)]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["evil.example", "http://evil.example/", "a\nb", "1e999", "2999-01-01T00:00:00+99:99"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class Scripted:
    """The network's edge: bytes in place of a server's."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self._answers = answers
        self.headers: dict[str, str] = {}

    def request(self, method: str, url: str, **_: Any) -> Scripted:
        assert url.startswith(f"{URL}/"), url
        self.status = 200
        self.data = json.dumps(self._answers[url.removeprefix(URL)]).encode()
        return self


def _ask_everything(answers: dict[str, Any]) -> None:
    for changes in ({}, {"access": "read_only"}, {"endpoint": None, "instance": "i"}):
        config = LakebaseConfig(
            **{
                "endpoint": ENDPOINT,
                "workspace_host": URL,
                "client_id": "c",
                "client_secret": SECRET,
                **changes,
            }
        )
        control_plane = ControlPlane(config)
        transport = RestTransport(config)
        transport._http = Scripted(answers)  # type: ignore[assignment]
        control_plane._transport = transport
        minter, targets = minter_for(config, control_plane), TargetResolver(config, control_plane)
        for ask in (
            control_plane.current_user_name,
            partial(minter.mint, FakeClock()),
            targets._resolve,
        ):
            _assert_usable_or_typed(ask)


def _assert_usable_or_typed(ask: Callable[[], Any]) -> None:
    try:
        found = ask()
    except LakebaseError as error:
        text = str(error)
    else:
        text = found.host if isinstance(found, Target) else getattr(found, "reveal", lambda: found)()
        assert text.isprintable()
        assert "evil" not in text or not isinstance(found, Target)
    assert text
    assert SECRET not in text


def _with(route: str, place: tuple[str, ...], value: Any) -> dict[str, Any]:
    answers: dict[str, Any] = json.loads(json.dumps(HONEST))
    *above, last = (route, *place)
    within: Any = answers
    for key in above:
        within = within[key]
    within[last] = value
    return answers


@pytest.fixture
def no_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    def send(self: SdkTransport, what: str, *_: Any, **__: Any) -> Any:
        raise ControlPlaneError(f"databricks-sdk was asked for {what}.")

    monkeypatch.setattr(SdkTransport, "send", send)


def test_the_honest_answers_are_usable(no_sdk: None) -> None:
    _ask_everything(HONEST)
    config = LakebaseConfig(endpoint=ENDPOINT, workspace_host=URL, client_id="c", client_secret=SECRET)
    control_plane = ControlPlane(config)
    control_plane._transport._http = Scripted(HONEST)  # type: ignore[attr-defined]
    assert TargetResolver(config, control_plane)._resolve().host == "ep.databricks.com"


@pytest.mark.deep
@settings(
    max_examples=examples(60, 10_000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
@given(place=st.sampled_from(PLACES), value=JSON)
def test_any_value_of_any_field_is_usable_or_a_typed_error(
    no_sdk: None, place: tuple[str, tuple[str, ...]], value: Any
) -> None:
    _ask_everything(_with(*place, value))
