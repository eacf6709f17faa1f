"""Make metrics of the program's own: `counter`, `gauge`, `histogram`."""

from __future__ import annotations

import math
import numbers
import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otel_pipeline_metrics._core import cardinality, privacy
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._core.cleaning import builtin, clean_int
from otel_pipeline_metrics._core.metric_definitions import Kind, Metric
from otel_pipeline_metrics._core.validation import check_attributes
from otel_pipeline_metrics._telemetry import sink
from otel_pipeline_metrics._telemetry.values import Attributes, level, measure, pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otel_pipeline_metrics._core.records import AttributeValue


# The syntax of OpenTelemetry's instrument names and units.
_NAME: Final = re.compile(r"[A-Za-z][-_./A-Za-z0-9]{0,254}")
_MAX_UNIT: Final = 63

_RESERVED: Final = frozenset(
    value.name for value in vars(defs).values() if isinstance(value, Metric)
)


class _Handle:
    """What the three handles share: the metric, and the guards on attributes."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._distinct = cardinality.Distinct()

    def __repr__(self) -> str:
        return f"{type(self).__name__.lower()}({self._metric.name!r})"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Pickle as a call that makes the same metric in another process."""
        name, kind, unit, description, *_ = self._metric
        return _handle, (type(self), kind, name, unit, description)

    def _guarded(self, attributes: Mapping[str, AttributeValue] | None) -> Attributes:
        if not attributes:
            return ()
        checked = check_attributes(attributes)
        kept = pairs(privacy.drop_forbidden(checked, f"metric {self._metric.name!r}"))
        return tuple((key, self._distinct.limit(key, value)) for key, value in kept)


class Counter(_Handle):
    """A sum that only rises; `counter()` makes it."""

    def __init__(self, metric: Metric) -> None:
        super().__init__(metric)
        self._measure = measure(metric)

    def add(
        self, amount: float = 1, attributes: Mapping[str, AttributeValue] | None = None
    ) -> None:
        """Add an amount of zero or more.

        Raises:
            TypeError: the amount is not a number, or an attribute has a type that OpenTelemetry
                does not take.
            ValueError: the amount is negative or not finite.
        """
        self._measure.record(_finite(amount, "amount", least=0), self._guarded(attributes))


class Histogram(_Handle):
    """A distribution of values; `histogram()` makes it."""

    def __init__(self, metric: Metric) -> None:
        super().__init__(metric)
        self._measure = measure(metric)

    def record(self, value: float, attributes: Mapping[str, AttributeValue] | None = None) -> None:
        """Add one value of zero or more.

        Raises:
            TypeError: the value is not a number, or an attribute has a type that OpenTelemetry
                does not take.
            ValueError: the value is negative or not finite.
        """
        self._measure.record(_finite(value, "value", least=0), self._guarded(attributes))


class Gauge(_Handle):
    """A level, of which the latest value counts; `gauge()` makes it."""

    def __init__(self, metric: Metric) -> None:
        super().__init__(metric)
        self._level = level(metric)
        sink.add_probe(f"own {metric.name.lower()}", self._level.install)

    def set(self, value: float, attributes: Mapping[str, AttributeValue] | None = None) -> None:
        """Replace the level under these attributes.

        Raises:
            TypeError: the value is not a number, or an attribute has a type that OpenTelemetry
                does not take.
            ValueError: the value is not finite.
        """
        self._level.set(_finite(value, "value"), self._guarded(attributes))


H = TypeVar("H", Counter, Gauge, Histogram)

# By name in lower case: OpenTelemetry's names do not differ by case.
_handles: dict[str, _Handle] = {}


def counter(name: str, *, unit: str = "", description: str = "") -> Counter:
    """Make a counter of the program's own, or return the one of that name.

    It may be made and used before `configure()`. Its attributes are guarded as those of stages
    are: forbidden keys are dropped, and a key has at most `max_attribute_values` values.

    Args:
        name: an OpenTelemetry instrument name, not one of this package.
        unit: in UCUM, such as "By" or "{order}".
        description: what it counts.

    Raises:
        TypeError: an argument is not a string.
        ValueError: the name or the unit is malformed, or the name is taken by a metric of
            another kind, unit or description.
    """
    return _handle(Counter, "counter", name, unit, description)


def gauge(name: str, *, unit: str = "", description: str = "") -> Gauge:
    """Make a gauge of the program's own; arguments and errors are those of `counter`."""
    return _handle(Gauge, "gauge", name, unit, description)


def histogram(name: str, *, unit: str = "", description: str = "") -> Histogram:
    """Make a histogram of the program's own; arguments and errors are those of `counter`.

    With the unit "s" it has the buckets of stage durations, otherwise those of the SDK. A view
    may set others.
    """
    return _handle(Histogram, "histogram", name, unit, description)


def _handle(make: type[H], kind: Kind, name: str, unit: str, description: str) -> H:
    for argument, text in (("name", name), ("unit", unit), ("description", description)):
        if not isinstance(text, str):
            raise TypeError(f"{argument} must be a string, not {type(text).__name__}")
    # without the methods of a class of the program
    name, unit, description = map(str.__str__, (name, unit, description))
    if not _NAME.fullmatch(name):
        raise ValueError(
            "name must begin with a letter and have at most 255 letters, digits and characters "
            f"of _ . - /, unlike {name!r:.80}"
        )
    if len(unit) > _MAX_UNIT or not unit.isascii():
        raise ValueError(f"unit must have at most {_MAX_UNIT} ASCII characters, not {unit!r:.80}")
    if name.lower() in _RESERVED:
        raise ValueError(f"name: {name!r} is a metric of otel_pipeline_metrics")
    buckets = defs.DURATION_BUCKETS if kind == "histogram" and unit == "s" else None
    metric = Metric(name, kind, unit, description, buckets=buckets)
    found = _handles.get(name.lower())
    if found is None:
        if len(_handles) >= cardinality.MAX_NAMES:
            raise ValueError(
                f"name: the program has {cardinality.MAX_NAMES} metrics of its own; what differs "
                "from one to the next belongs into an attribute"
            )
        # setdefault is atomic: two threads that make a metric get the same one
        found = _handles.setdefault(name.lower(), make(metric))
    known = found._metric
    if not isinstance(found, make) or known != metric:
        raise ValueError(
            f"name: {name!r} is already a {known.kind} named {known.name!r} with unit "
            f"{known.unit!r} and description {known.description!r:.200}"
        )
    return found


def _finite(value: Any, argument: str, *, least: float = -math.inf) -> float:
    """Return a checked number; an integer stays one."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{argument} must be a number, not {type(value).__name__}")
    number: float
    value = builtin(value)
    if isinstance(value, numbers.Integral):
        number = clean_int(int(value), argument)
    else:
        try:
            number = float(value)
        except OverflowError:  # a fraction may be larger than any float
            number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{argument} must be finite, not {number}")
    if number < least:
        raise ValueError(f"{argument} must not be negative, this one is {number:g}")
    return number
