"""`opm doctor` and `opm replay`; the command line registers them."""

from __future__ import annotations

import click


@click.command(short_help="Tell what is configured and whether telemetry arrives.")
@click.option("--no-send", is_flag=True, help="Look only; send no span and no metric.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long each of the two may take to arrive.",
)
@click.pass_context
def doctor(context: click.Context, no_send: bool, timeout: float) -> None:
    """Tell what is configured and from where, and send one span and one metric.

    They are called "opm doctor" and "opm.doctor", and belong to the configured service. The exit
    code is 0 if all is well, 1 if something is not.
    """
    from otel_pipeline_metrics.cli import doctor as _doctor

    text, code = _doctor.main(send=not no_send, timeout_s=timeout)
    click.echo(text)
    context.exit(code)


@click.command(short_help="Send what a spool keeps.")
@click.argument("directory")
@click.pass_context
def replay(context: click.Context, directory: str) -> None:
    """Send what the spool in DIRECTORY keeps to where the OTEL_EXPORTER_OTLP_* variables point.

    Batches are deleted once they have arrived. The exit code is 0 if none is left, 1 if some
    are, 2 if nothing can be sent at all.
    """
    from otel_pipeline_metrics._export.replay import ReplayError
    from otel_pipeline_metrics._export.replay import replay as send

    try:
        done = send(directory)
    except ReplayError as error:
        click.echo(f"opm: {error}", err=True)
        context.exit(2)
    if not done:
        click.echo("nothing is kept there")
    for each in done:
        noun = "span" if each.signal == "traces" else "metric point"
        text = f"{each.sent:,} {noun}{'s' * (each.sent != 1)} sent to {each.target}"
        if each.refused:
            text += f", {each.refused:,} refused for good"
        if each.batches_left:
            reason = f" ({each.reason})" if each.reason else ""
            text += f", {each.batches_left:,} batch{'es' * (each.batches_left != 1)} left{reason}"
        click.echo(text)
    context.exit(int(any(each.batches_left for each in done)))
