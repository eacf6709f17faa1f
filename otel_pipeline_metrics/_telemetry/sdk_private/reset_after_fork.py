"""What a forked child inherits of the SDK's metrics: the parent's sums, and locks held there.

The SDK (1.30 to 1.45, as measured) resets neither: a child would export its parent's sums again
under another instance id, and hang in its first `record()` where another thread was recording at
the moment of the fork. Both are in private parts; beside `bulk_record` this is the one file that
knows them. Where they look unfamiliar nothing is changed, and that is said.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import errors

if TYPE_CHECKING:
    from collections.abc import Callable


def reset(provider: Any, ours: Callable[[Any], bool]) -> None:
    """Give a provider of the SDK new locks, and no sums of the instruments that are `ours`.

    Runs in the child alone, before any other thread of it touches the provider. Instruments stay
    as they are: the SDK makes their state anew at the next record.
    """
    consumer = getattr(provider, "_measurement_consumer", None)
    if consumer is None:
        return  # none of the SDK's
    try:
        _new_lock(consumer)
        for lock in ("_lock", "_meter_lock"):
            if hasattr(provider, lock):
                setattr(provider, lock, threading.Lock())
        for meter in list(provider._meters.values()):
            if hasattr(meter, "_instrument_id_instrument_lock"):
                meter._instrument_id_instrument_lock = threading.Lock()
        for reader, storage in list(consumer._reader_storages.items()):
            if hasattr(reader, "_export_lock"):
                reader._export_lock = threading.Lock()
            storage._lock = threading.RLock()
            _forget(storage._instrument_view_instrument_matches, ours)
        # as after a change of readers: `bulk_record` then looks again for where values go
        consumer._reader_storages = dict(consumer._reader_storages)
    except AttributeError as error:
        errors.warn_once(
            "inherited metrics",
            "this OpenTelemetry SDK's metrics cannot be reset after a fork (%s): what a forked "
            "child exports has its parent's sums in it",
            error,
        )


def _forget(matches: dict[Any, Any], ours: Callable[[Any], bool]) -> None:
    for instrument in list(matches):
        if ours(instrument):
            del matches[instrument]
            continue
        for match in matches[instrument]:
            _new_lock(match)
            for aggregation in list(match._attributes_aggregation.values()):
                _new_lock(aggregation)


def _new_lock(thing: Any) -> None:
    thing._lock  # noqa: B018 - AttributeError where it is not as expected
    thing._lock = threading.Lock()
