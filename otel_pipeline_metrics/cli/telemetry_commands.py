"""The commands `doctor` and `replay`."""

from __future__ import annotations

import click

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.validation import MAX_WAIT_S
from otel_pipeline_metrics.cli.files import BadInput, say, say_lines


@click.command(short_help="Check the configuration and whether telemetry arrives.")
@click.option("--no-send", is_flag=True, help="Check only; send no span and no metric.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=MAX_WAIT_S),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long each of the two may take to arrive.",
)
@click.pass_context
def doctor(context: click.Context, no_send: bool, timeout: float) -> None:
    """Show what is configured and from where, and send one span and one metric.

    They are named "opm doctor" and "opm.doctor", and belong to the configured service. The exit
    code is 0 without a problem, 1 with one.
    """
    from otel_pipeline_metrics.cli import doctor as checks

    findings = checks.diagnose(send=not no_send, timeout_s=timeout)
    say_lines(checks.render(findings))
    context.exit(checks.exit_code(findings))


@click.command(short_help="Send what a spool keeps.")
@click.argument("directory")
@click.pass_context
def replay(context: click.Context, directory: str) -> None:
    """Send what the spool in DIRECTORY keeps.

    The OTEL_EXPORTER_OTLP_* variables say where it is sent. Batches are deleted once they have
    arrived. The exit code is 0 if none is left, 1 if some are, 2 if nothing can be sent at all.
    """
    from otel_pipeline_metrics._export import replay as spool

    try:
        done = spool.replay(directory)
    except spool.ReplayError as error:
        raise BadInput(str(error)) from None
    if not done:
        say("the spool is empty")
    for each in done:
        noun = "span" if each.signal == "traces" else "metric point"
        line = f"{text.counted(each.sent, noun)} sent to {each.target}"
        if each.refused:
            line += f", {each.refused:,} refused permanently"
        if each.batches_left:
            reason = f" ({each.reason})" if each.reason else ""
            line += f", {text.counted(each.batches_left, 'batch')} left{reason}"
        say(line)
    context.exit(int(any(each.batches_left for each in done)))
