"""Reset the sums and locks of the SDK's metrics in a forked child.

The SDK (1.30 to 1.45, as measured) resets neither. A child would export its parent's sums again
under another instance id, and hang in its first `record()` if another thread was recording at
the moment of the fork. Both are private parts of the SDK; if they are unfamiliar, nothing more
is changed, and a warning is logged.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics._core import errors

if TYPE_CHECKING:
    from collections.abc import Callable


def reset(provider: Any, ours: Callable[[Any], bool]) -> None:
    """Renew the locks of an SDK provider, and drop the sums of `ours`.

    Runs in the child alone, before another thread of it uses the provider. Instruments do not
    change: the SDK rebuilds their state at the next record.
    """
    consumer = getattr(provider, "_measurement_consumer", None)
    if consumer is None:
        return  # not a provider of the SDK
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
            _drop_sums(storage._instrument_view_instrument_matches, ours)
        # a new dict, as after a change of readers, makes `bulk_record` look up its targets again
        consumer._reader_storages = dict(consumer._reader_storages)
    except AttributeError as error:
        errors.warn_once(
            "inherited metrics",
            "the metrics of this OpenTelemetry SDK cannot be reset after a fork (%s): a forked "
            "child exports its parent's sums too",
            error,
        )


def _drop_sums(matches: dict[Any, Any], ours: Callable[[Any], bool]) -> None:
    for instrument in list(matches):
        if ours(instrument):
            del matches[instrument]
            continue
        for match in matches[instrument]:
            _new_lock(match)
            for aggregation in list(match._attributes_aggregation.values()):
                _new_lock(aggregation)


def _new_lock(thing: Any) -> None:
    thing._lock  # noqa: B018 - an AttributeError tells that it is unfamiliar
    thing._lock = threading.Lock()
