"""Test exceptions' messages: off by default, shortened, and without credentials."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import StatusCode

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import privacy

if TYPE_CHECKING:
    from tests.conftest import Results
    from tests.lifecycle.configure.support import Captured

SECRET = "s3cret-of-the-row"  # noqa: S105


def fail(error: BaseException) -> opm.RunReport:
    with contextlib.suppress(Exception), opm.run("r", resources=False) as run, opm.stage("s"):
        raise error
    return run.report


def descriptions(captured: Captured) -> dict[str, str | None]:
    assert {span.status.status_code for span in captured.spans()} == {StatusCode.ERROR}
    return {span.name: span.status.description for span in captured.spans()}


def test_messages_are_off_by_default(
    captured: Captured, said: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    captured.configure(console=True)
    report = fail(ValueError(SECRET))
    everything = [
        *(span.to_json() for span in captured.spans()),
        *(report.render(form) for form in ("console", "html", "json", "markdown")),
        str(captured.points()),
        said.text,
        *capsys.readouterr(),
    ]
    assert len(captured.spans()) == 2
    assert [text for text in everything if SECRET in text] == []
    assert descriptions(captured) == {"s": None, "run r": None}


def test_an_argument_wins_over_the_environment(
    captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PIPELINE_METRICS_ERROR_MESSAGES", "true")
    captured.configure(console=False, error_messages=False)
    fail(ValueError("no such row"))
    assert descriptions(captured) == {"s": None, "run r": None}


@pytest.mark.parametrize("way", ["argument", "environment"])
def test_a_message_becomes_the_description_of_the_span_status(
    way: str, captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "environment":
        monkeypatch.setenv("OTEL_PIPELINE_METRICS_ERROR_MESSAGES", "true")
    captured.configure(console=False, error_messages=True if way == "argument" else None)
    report = fail(ValueError("no such row"))
    assert descriptions(captured) == {"s": "no such row", "run r": "no such row"}
    assert "no such row" not in report.to_json()  # on spans only
    assert "no such row" not in str(captured.points())


def test_only_errors_have_a_message(captured: Captured) -> None:
    captured.configure(console=False, error_messages=True)
    with contextlib.suppress(KeyboardInterrupt), opm.stage("s"):
        raise KeyboardInterrupt(SECRET)
    (span,) = captured.spans()
    assert span.status.description is None
    assert SECRET not in span.to_json()


def test_a_sink_gets_messages_of_errors_only(results: Results) -> None:
    privacy.activate(privacy.Rules(error_messages=True))
    for error in (ValueError("v"), KeyboardInterrupt("k"), GeneratorExit("g")):
        with contextlib.suppress(BaseException), opm.stage("s") as stage:
            stage.add_items(1)
            raise error
    assert [result.error_message for result in results.of("s")] == ["v", None, None]


def test_a_late_span_has_the_message(captured: Captured) -> None:
    captured.configure(console=False, error_messages=True, spans_per_second=0.001)
    stage = opm.stage("s")
    for _ in range(1000):
        with stage:
            pass
    captured.exporter.clear()
    with contextlib.suppress(ValueError), stage:
        raise ValueError("late")
    assert descriptions(captured) == {"s": "late"}


def test_a_message_is_cut_at_a_thousand_characters_and_counted(captured: Captured) -> None:
    captured.configure(console=False, error_messages=True)
    fail(ValueError("x" * 1000))
    assert opm.stats()["guards"]["cut_messages"] == 0
    captured.exporter.clear()
    report = fail(ValueError("y" * 1001))
    assert descriptions(captured) == dict.fromkeys(("s", "run r"), "y" * 999 + "…")
    assert opm.stats()["guards"]["cut_messages"] == 2
    assert report.telemetry["guards"]["cut_messages"] == 2


class Unspeakable(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_an_error_whose_str_fails_reaches_the_user(captured: Captured) -> None:
    captured.configure(console=False, error_messages=True)
    with pytest.raises(Unspeakable), opm.stage("s"):
        raise Unspeakable
    assert [s.attributes["error.type"] for s in captured.spans() if s.attributes] == [
        f"{__name__}.Unspeakable"
    ]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("cannot reach https://ann:pw@db:5432/x", "cannot reach https://db:5432/x"),
        ("postgresql://ann@db/x and amqp://u:p@q/", "postgresql://db/x and amqp://q/"),
        ("GET /v1?token=abc&page=2 failed", "GET /v1?token=***&page=2 failed"),
        ("url: /x?page=1&api-key=k (refused)", "url: /x?page=1&api-key=*** (refused)"),
        ("mail to ann@example.org?", "mail to ann@example.org?"),
        ("a?b=c&d", "a?b=c&d"),
    ],
)
def test_secrets_in_urls_are_removed(message: str, expected: str) -> None:
    assert privacy.sanitized_message(ValueError(message)) == expected


@given(st.text(max_size=3000), st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True))
def test_credentials_are_removed_from_any_message(around: str, secret: str) -> None:
    """Wherever the URL is in the message, also across the cut."""
    hidden = f"\u2620{secret}\u2620"
    message = f"{around} https://ann:{hidden}@host/x?auth_token={hidden} {around}"
    told = privacy.sanitized_message(ValueError(message))
    assert hidden not in told
    assert f"\u2620{secret[:1]}" not in told or "\u2620" in around
    assert len(told) <= 1000


@pytest.mark.parametrize("before", range(960, 1004))
def test_credentials_across_the_cut_are_removed(before: int) -> None:
    told = privacy.sanitized_message(
        ValueError(f"{'x' * before} db://ann:{SECRET}@host {'y' * 999}")
    )
    assert SECRET[:2] not in told
    assert "ann" not in told


def test_credentials_longer_than_the_cut_are_removed() -> None:
    for message in (f"git clone https://oauth2:{'j' * 5000}@host/x", f"/x?auth-token={'j' * 5000}"):
        assert "jj" not in privacy.sanitized_message(ValueError(message))


def test_the_error_of_a_users_function_is_cut_in_the_log(
    captured: Captured, said: pytest.LogCaptureFixture
) -> None:
    captured.configure(console=False)

    def count(_: object) -> int:
        raise ValueError("z" * 5000 + SECRET)

    opm.process("s", items=count)(lambda: None)()
    (line,) = [m for m in said.messages if "items=" in m]
    assert "z" * 900 in line
    assert len(line) < 1200
    assert SECRET not in line
