"""Count the readers of a meter provider."""

from __future__ import annotations

from typing import Any


def count_readers(provider: Any) -> int:
    """Return how many readers collect from a provider; 1 if its private parts are unfamiliar."""
    consumer = getattr(provider, "_measurement_consumer", None)
    storages = getattr(consumer, "_reader_storages", None)
    return len(storages) if isinstance(storages, dict) else 1
