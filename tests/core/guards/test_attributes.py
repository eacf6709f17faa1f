"""Test forbidden keys at every entrance: refused if strict, else dropped and counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import privacy, stage_id
from tests.lifecycle.configure.support import run_python

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.export.conftest import Received
    from tests.lifecycle.configure.support import Captured

WRONG = {"user.email": "ann@example.org", "tenant": "a"}


def dropped() -> int:
    count: int = opm.stats()["guards"]["forbidden_keys"]
    return count


def given(captured: Captured, span: str) -> dict[str, Any]:
    """Return the attributes of the span `name` that are not the library's own."""
    (found,) = [one for one in captured.spans() if one.name == span]
    attributes = found.attributes or {}
    own = ("pipeline.", "code.")
    return {key: value for key, value in attributes.items() if not key.startswith(own)}


def function_(attributes: Any) -> None:
    @opm.stage("s", attributes=attributes)
    def work() -> None: ...

    work()


def block(attributes: Any) -> None:
    with opm.process("s", attributes=attributes):
        pass


async def generator(attributes: Any) -> None:
    @opm.fetch("s", attributes=attributes)
    async def work() -> Any:
        yield 1

    async for _ in work():
        pass


def later(attributes: Any) -> None:
    with opm.write("s") as stage:
        for key, value in attributes.items():
            stage.set_attribute(key, value)


def of_a_run(attributes: Any) -> None:
    with opm.run("s", attributes=attributes, resources=False):
        pass


def of_a_metric(attributes: Any) -> None:
    opm.counter("orders").add(1, attributes)


# where something is defined, and while the program works
DEFINITIONS = [function_, generator, of_a_run]
ENTRANCES = [*DEFINITIONS, block, later]


async def enter(entrance: Callable[[Any], Any], attributes: Any) -> None:
    entered = entrance(attributes)
    if entered is not None:
        await entered


@pytest.mark.parametrize("entrance", ENTRANCES)
async def test_a_forbidden_key_is_dropped_counted_and_logged_once(
    entrance: Any, captured: Captured, said: pytest.LogCaptureFixture
) -> None:
    captured.configure(metric_attributes=("tenant", "user.email"), console=False)
    before = dropped()
    for _ in range(3):
        captured.exporter.clear()
        await enter(entrance, WRONG)
        span = "run s" if entrance is of_a_run else "s"
        assert given(captured, span) == {"tenant": "a"}
    assert dropped() - before == 3
    points = [p for found in captured.points().values() for p in found]
    assert points
    assert not [p for p in points if "user.email" in (p.attributes or {})]
    warnings = [m for m in said.messages if "user.email" in m]
    assert len(warnings) == 1
    assert "ann@example.org" not in said.text


@pytest.mark.parametrize("entrance", DEFINITIONS)
async def test_a_definition_is_refused_if_strict(entrance: Any, captured: Captured) -> None:
    captured.configure(strict=True, console=False)
    with pytest.raises(ValueError, match=r"attributes: the key .user\.email. is forbidden"):
        await enter(entrance, WRONG)
    assert dropped() == 0
    await enter(entrance, {"tenant": "a", "cache_key_count": 1, "db.collection.name": "pages"})


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("entrance", [block, later, of_a_metric])
async def test_the_programs_work_is_never_refused(
    entrance: Any, strict: bool, captured: Captured, said: pytest.LogCaptureFixture
) -> None:
    """In every environment: what depends on data may first fail in production."""
    captured.configure(strict=strict, console=False)
    for _ in range(3):
        await enter(entrance, WRONG)
    assert dropped() == 3
    assert len([m for m in said.messages if "'user.email'" in m and "is dropped" in m]) == 1


@pytest.mark.parametrize("entrance", ENTRANCES)
async def test_keys_of_opentelemetry_go_out(entrance: Any, captured: Captured) -> None:
    captured.configure(strict=True, console=False)
    names = {
        "db.collection.name": "pages", "messaging.destination.name": "orders", "file.name": "a.txt"
    }  # fmt: skip
    await enter(entrance, names)
    assert given(captured, "run s" if entrance is of_a_run else "s") == names


# --- allowed keys ---------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["argument", "environment"])
async def test_allowed_keys_pass_as_a_whole(
    way: str, captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed: tuple[str, ...] = ("user.id", "customer_email")
    if way == "environment":
        monkeypatch.setenv("OTEL_PIPELINE_METRICS_ALLOWED_KEYS", "user.id, customer_email")
        allowed = ()
    captured.configure(strict=True, console=False, allowed_keys=allowed)
    function_({"user.id": 7, "customer_email": "a"})
    assert given(captured, "s") == {"user.id": 7, "customer_email": "a"}
    for other in ("user.hash", "old.user.id", "email"):
        with pytest.raises(ValueError, match="is forbidden"):
            function_({other: 1})


@pytest.mark.parametrize(
    "key",
    ["password", "db.password", "auth_token", "client-secret", "X-API-Key", "user.password",
     "Authorization", "cookie", "p\u0430ssword", "http.request.header.authorization"],
)  # fmt: skip
def test_a_secret_is_never_allowed(
    key: str, captured: Captured, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match=r"allowed_keys: .* is never allowed"):
        captured.configure(console=False, allowed_keys=["user.id", key])
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_ALLOWED_KEYS", f"tenant.name,{key}")
    captured.configure(strict=True, console=False)
    assert [m for m in said.messages if "OTEL_PIPELINE_METRICS_ALLOWED_KEYS" in m]
    function_({"tenant.name": "a"})
    with pytest.raises(ValueError, match="is forbidden"):
        function_({key: 1})


def test_forbidden_keys_win_over_allowed_ones(captured: Captured) -> None:
    captured.configure(console=False, allowed_keys=["user.id"], forbidden_keys=["user_id"])
    function_({"user.id": 1, "tenant": "a"})
    assert given(captured, "s") == {"tenant": "a"}


def test_outside_a_stage_nothing_is_kept_or_refused(captured: Captured) -> None:
    captured.configure(strict=True, console=False)
    opm.current_stage().set_attribute("user.email", "x")
    assert dropped() == 0


# --- when the rules are strict -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "env", "strict"),
    [
        ({"exporter": "console"}, {}, True),
        ({}, {}, True),  # no exporter is asked for
        ({"console": "all"}, {}, True),
        ({"console": "off"}, {}, True),
        ({}, {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none"}, True),
        ({}, {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "otlp"}, False),
        ({"exporter": ["console", "otlp"]}, {}, False),
        ({"exporter": "otlp", "console": "all"}, {}, False),
        ({"exporter": "none"}, {}, False),
        ({"exporter": "console", "strict": False}, {}, False),
        ({"exporter": "none", "strict": True}, {}, True),
        ({"exporter": "none"}, {"OTEL_PIPELINE_METRICS_STRICT": "true"}, True),
        ({"exporter": "console"}, {"OTEL_PIPELINE_METRICS_STRICT": "false"}, False),
        ({"exporter": "none", "strict": False}, {"OTEL_PIPELINE_METRICS_STRICT": "true"}, False),
        ({"exporter": "none"}, {"OTEL_PIPELINE_METRICS_STRICT": "perhaps"}, False),
        ({}, {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}, False),
        ({}, {"OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_the_development_console_is_strict_by_default(
    arguments: Any, env: dict[str, str], strict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    opm.configure(**arguments)
    assert privacy.rules().strict is strict
    opm.shutdown()


def test_the_users_own_providers_are_not_strict(captured: Captured) -> None:
    captured.configure()
    assert not privacy.rules().strict
    opm.shutdown()
    captured.install()
    opm.configure()
    assert not privacy.rules().strict


def test_shutdown_ends_strictness() -> None:
    opm.configure(exporter="none", strict=True, forbidden_keys=["tenant"])
    opm.shutdown()
    opm.stage("s", attributes=WRONG)
    assert not privacy.rules().strict
    assert not privacy.rules().words


@pytest.mark.parametrize(
    ("argument", "wrong", "error"),
    [
        ("strict", 1, TypeError),
        ("strict", "true", TypeError),
        ("forbidden_keys", "tenant", TypeError),
        ("forbidden_keys", [1], TypeError),
        ("forbidden_keys", [""], ValueError),
        ("allowed_keys", "user.id", TypeError),
        ("allowed_keys", [1], TypeError),
        ("error_messages", "yes", TypeError),
        ("max_attribute_values", 1.5, TypeError),
        ("max_attribute_values", True, TypeError),
        ("max_attribute_values", 0, ValueError),
    ],
)
def test_wrong_arguments_are_named(argument: str, wrong: Any, error: Any) -> None:
    with pytest.raises(error, match=argument):
        opm.configure(exporter="none", **{argument: wrong})


# --- the arguments of configure() ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("resource_attributes", {"owner.email": "ann@example.org"}),
        ("resource_attributes", {"name": "n"}),
        ("resource_attributes", {"deployment.token": "t"}),
        ("metric_attributes", ["tenant", "user_id"]),
    ],
)
def test_forbidden_keys_in_arguments_of_configure(
    argument: str, value: Any, captured: Captured
) -> None:
    captured.configure(console=False)
    with pytest.raises(ValueError, match=f"{argument}: the key "):
        captured.configure(strict=True, console=False, **{argument: value})
    # the configuration from before stays in force
    function_({"tenant": "a"})
    assert captured.span_names() == ["s"]
    assert not privacy.rules().strict
    captured.configure(console=False, **{argument: value})
    assert dropped() == 1


def test_a_refused_configure_keeps_the_exporters(
    http_collector: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", http_collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    opm.configure(console=False)
    with pytest.raises(ValueError, match="resource_attributes"):
        opm.configure(strict=True, resource_attributes={"email": "ann@example.org"})
    function_({"tenant": "a"})
    opm.shutdown()
    assert http_collector.spans == {"s": 1}


@pytest.mark.parametrize(
    "key", ["service.name", "host.name", "k8s.pod.name", "deployment.environment.name", "os.name"]
)
def test_resource_names_of_the_conventions_are_kept(key: str) -> None:
    """They describe a process, and the semantic conventions define them."""
    opm.configure(exporter="console", resource_attributes={key: "x"})
    assert privacy.rules().strict
    assert trace.get_tracer_provider().resource.attributes[key] == "x"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="attributes: the key"):
        opm.stage("s", attributes={"rack.name": "x"})(print)


def test_forbidden_keys_in_the_environment_raise_no_error(
    captured: Captured, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_METRIC_ATTRIBUTES", "tenant, user.email")
    captured.configure(strict=True, console=False)
    assert dropped() == 1
    assert "'user.email' of metric_attributes is dropped" in said.text
    function_({"tenant": "a"})
    assert set(captured.values("pipeline.stage.duration", "tenant")) == {"a"}


@pytest.mark.parametrize("way", ["argument", "environment"])
def test_configure_adds_forbidden_keys(
    way: str, captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ["tenant", "personNumber"]
    if way == "environment":
        monkeypatch.setenv("OTEL_PIPELINE_METRICS_FORBIDDEN_KEYS", " tenant,personNumber ,")
        captured.configure(console=False)
    else:
        captured.configure(console=False, forbidden_keys=more)
    function_({"tenant": "a", "eu.person-number": 7, "name": "n", "person_numbers": 1})
    assert given(captured, "s") == {"person_numbers": 1}
    assert dropped() == 3


# --- stages that were defined before configure() ------------------------------------------------


def test_strict_configure_names_a_stage_that_lost_an_attribute(captured: Captured) -> None:
    @opm.stage("early", attributes=WRONG)
    def early() -> None: ...

    with pytest.raises(ValueError, match=r"stage 'early'.* 'user\.email', whose key is forbidden"):
        captured.configure(strict=True, console=False)
    early()
    assert captured.spans() == []
    captured.configure(strict=True, console=False)  # logged once
    early()
    assert given(captured, "early") == {"tenant": "a"}


@pytest.mark.parametrize("arguments", [{}, {"exporter": "console"}, {"console": "all"}])
def test_implied_strictness_judges_what_was_defined_before(arguments: Any) -> None:
    early = opm.stage("early", attributes=WRONG)(lambda: 1)
    with pytest.raises(ValueError, match=r"stage 'early'.* 'user\.email', whose key is forbidden"):
        opm.configure(**arguments)
    assert early() == 1
    opm.configure(**arguments, strict=False)


def test_keys_forbidden_later_are_removed_from_stages_that_ran(captured: Captured) -> None:
    """From spans and metrics: a stage's span attributes are computed only once."""
    captured.configure(console=False, metric_attributes=("tenant",))
    early = opm.stage("early", attributes={"tenant": "a", "shard": 1})(lambda: None)
    early()
    assert given(captured, "early") == {"tenant": "a", "shard": 1}
    captured.exporter.clear()
    captured.configure(console=False, metric_attributes=("tenant",), forbidden_keys=["tenant"])
    early()
    assert given(captured, "early") == {"shard": 1}
    assert dropped() == 2  # of the stage, and the one named for metrics
    with pytest.raises(ValueError, match=r"stage 'early'.* 'shard'"):
        captured.configure(strict=True, forbidden_keys=["shard"])
    captured.exporter.clear()
    early()  # no change
    assert given(captured, "early") == {"shard": 1}


def test_a_block_defined_before_loses_the_key_when_it_is_entered(captured: Captured) -> None:
    """It is not refused then, in the middle of the user's work."""
    early = opm.stage("early", attributes=WRONG)
    captured.configure(strict=True, console=False)
    with early:
        pass
    assert given(captured, "early") == {"tenant": "a"}


def test_the_environment_applies_from_import_on() -> None:
    program = (
        "import otel_pipeline_metrics as opm\nopm.stage('s', attributes={'tenant': 1})(print)\n"
    )
    env = {"OTEL_PIPELINE_METRICS_FORBIDDEN_KEYS": "tenant"}
    strict = run_python(program, OTEL_PIPELINE_METRICS_STRICT="true", **env)
    assert "ValueError: attributes: the key 'tenant' is forbidden" in strict.stderr
    lenient = run_python(program, **env)
    assert lenient.returncode == 0
    assert "the attribute 'tenant' of stage 's' is dropped" in lenient.stderr


def test_keys_made_from_data_keep_memory_and_log_small(
    captured: Captured, said: pytest.LogCaptureFixture
) -> None:
    captured.configure(console=False)
    with opm.stage("s") as stage:
        for number in range(5000):
            stage.set_attribute(f"row{number}.name", "x")
    assert dropped() == 5000
    assert len(privacy._known_keys) <= 1000
    assert len(said.messages) <= 1001
    assert "no more follow" in said.messages[-1]


def test_a_stage_keeps_its_attributes_in_another_process() -> None:
    """The attributes that are left are part of its identity."""
    stage = opm.stage("s", attributes=WRONG)(len)
    assert stage([]) == 0
    (identity,) = stage_id._described.values()
    assert identity.attributes == {"tenant": "a"}
