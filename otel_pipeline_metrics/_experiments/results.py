"""Tell in a report what the experiments of its run have shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._experiments.effects import LEAST_CALLS, LEAST_WINDOWS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline_metrics._experiments.effects import Effect
    from otel_pipeline_metrics._experiments.experiment import Experiment

# Gains that differ by less are alike.
ALIKE: Final = 0.05
# What chance may always do, and a range that says too little, of the throughput then.
LEAST_WIDE: Final = 0.02
SURE: Final = 0.20


def add_results(experiment: Experiment, data: dict[str, Any]) -> None:
    """Add `experiments` and `confirmed` to a report's verdict, and what they cost to its run."""
    verdict = data["bottleneck"]
    effects = {} if experiment.why else experiment.results()
    rows = []
    for stage in data["stages"]:
        name = stage["name"]
        found = next(
            (e for t, e in effects.items() if (t.key.stage, t.key.kind) == (name, stage["kind"])),
            None,
        )
        row = {"change": "faster", "name": name, "stage": name, "by": 2}
        rows.append(row | _predicted(found, experiment.why))
    for row in rows:
        row["confirmed"] = _confirms(row, verdict)
    verdict["experiments"] = rows
    verdict["confirmed"] = confirmed(verdict, rows)
    wall_s = data["run"].get("wall_s") or 0.0
    data["run"]["experiment"] = {
        "slowed": round(experiment.slowed_s / wall_s, 4) if wall_s else None,
        "paused_s": experiment.paused_s,
    }


def _predicted(effect: Effect | None, why: str | None) -> dict[str, Any]:
    """Return what is predicted for a stage that is twice as fast, or why nothing is."""
    calls = 0 if effect is None else effect.invocations
    nothing = {"predicted": None, "interval": None, "invocations": calls}
    if effect is None:
        return nothing | {"why": why or "it was not tried"}
    gain = effect.gain
    if effect.absorbs and effect.steady:
        return nothing | {
            "why": "its calls end at a steady rate, which may be a limit inside of it"
        }
    if effect.pauses is False:
        return nothing | {"why": "its calls cannot be paused"}
    if gain is None:
        least = f"{LEAST_CALLS} calls in {LEAST_WINDOWS} windows"
        return nothing | {"why": f"too few calls: it takes {least}"}
    if gain.high - gain.low > 2 * SURE * (1 + gain.gain):
        return nothing | {"why": "the throughput varied too much"}
    low, high = min(gain.low, gain.gain - LEAST_WIDE), max(gain.high, gain.gain + LEAST_WIDE)
    reason = None
    if effect.absorbs and gain.gain > ALIKE:
        # twice as fast inside of a rate is no faster
        low, reason = 0.0, "its calls wait for each other inside, which may be a rate"
    return {
        "predicted": round(max(0.0, gain.gain), 4),
        "interval": [round(max(0.0, each), 4) for each in (low, high)],
        "invocations": calls,
        "why": reason,
    }


def _confirms(row: Mapping[str, Any], verdict: Mapping[str, Any]) -> bool | None:
    """Tell whether an experiment bears out the gain that the verdict tells for the same change."""
    told = next(
        (
            change["gain"]
            for change in verdict.get("what_if") or ()
            if change["change"] == row["change"] and change["name"] == row["name"]
        ),
        None,
    )
    if told is None or row["interval"] is None or row["why"] is not None:
        return None
    low, high = row["interval"]
    return bool(low <= told[1] + ALIKE and told[0] - ALIKE <= high)


def confirmed(verdict: Mapping[str, Any], rows: list[dict[str, Any]]) -> bool | None:
    """Tell whether the experiments bear a verdict out; None where they cannot tell.

    A verdict on a stage is borne out if no other stage surely gains more, and refuted if one does.
    A tie is refuted by a stage that gains alone. A limit beside the stages is refuted by a stage
    that surely gains more than a limit could leave.
    """
    known = [row for row in rows if row["interval"] is not None and row["why"] is None]
    if verdict["kind"] == "unknown" or not known:
        return None
    best = max(known, key=lambda row: row["interval"][0])
    if verdict["kind"] == "tie":
        return False if best["interval"][0] > ALIKE else None
    named = verdict.get("stage")
    own = next((row for row in known if row["name"] == named), None)
    if verdict["kind"] not in {"stage", "workers", "serial", "skew", "event loop"}:
        return None
    if own is None or len(known) < len(rows):
        return None
    if best["interval"][0] > own["interval"][1] + ALIKE:
        return False
    return True if own["interval"][0] > 0 else None
