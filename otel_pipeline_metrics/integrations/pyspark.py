"""Bring what Spark's executors do into the report of the run that is open in the driver.

    from otel_pipeline_metrics.integrations.pyspark import instrument_partitions

    rdd.mapPartitions(instrument_partitions(parse_all)).collect()

Each partition is a part, which comes back by an accumulator of Spark's own.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from pyspark import SparkContext, TaskContext
from pyspark.accumulators import AccumulatorParam

from otel_pipeline_metrics._core import errors, series
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._lifecycle import configure, run_parts
from otel_pipeline_metrics._lifecycle.part import begin_part, open_runs
from otel_pipeline_metrics._lifecycle.worker_parts import WorkerParts, configure_worker
from otel_pipeline_metrics._stages.parts import fold
from otel_pipeline_metrics.report.part_schema import UNREADABLE, packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pyspark import Accumulator

    from otel_pipeline_metrics._lifecycle.run_parts import RunParts

# Of the thread that opened a run; Spark gives it to the tasks of the jobs that the thread starts.
_PROPERTY: Final = "otel_pipeline_metrics.context"


def instrument_partitions(function: Callable[..., Iterable[Any] | None]) -> Callable[..., Any]:
    """Measure a function of partitions for the run whose driver starts the job.

    For `mapPartitions`, `mapPartitionsWithIndex`, `foreachPartition`, `mapInPandas` and
    `mapInArrow`. What an attempt did that failed is at the Collector, and not in the report.

    Args:
        function: takes the elements of a partition, and returns or yields elements.

    Raises:
        TypeError: it is not callable.
    """
    if not callable(function):
        raise TypeError(f"function must be callable, not {type(function).__name__}")
    return _Partitions(function)


class _Partitions:
    """The function, which pickles with the run that is open, and with where its parts go."""

    def __init__(
        self,
        function: Callable[..., Any],
        parts: Accumulator[list[bytes]] | None = None,
        context: dict[str, Any] | None = None,
    ) -> None:
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._parts = parts
        self._context = context

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for the executors."""
        if TaskContext.get() is not None:
            return _Partitions, (self._function, self._parts, self._context)
        parts, context = None, None
        with errors.suppress_errors("the driver of Spark"):
            parts = _driver.accumulator()
            run = series.current_scope().parts
            context = None if run is None else run.share()
        return _Partitions, (self._function, parts, context)

    def __call__(self, *arguments: Any, **kwargs: Any) -> Iterator[Any]:
        """Yield what the function does with one partition."""
        part = None
        with errors.suppress_errors("beginning a partition of Spark"):
            part = _begin(self._context)
        if part is None:
            # the driver itself, or the partition of a function that is measured already
            yield from self._function(*arguments, **kwargs) or ()
            return
        is_whole = False
        try:
            yield from self._function(*arguments, **kwargs) or ()
            is_whole = True
        except GeneratorExit:
            # no more of it is wanted
            is_whole = True
            raise
        finally:
            with errors.suppress_errors("ending a partition of Spark"):
                _end(part, self._parts if is_whole else None)


class _Measuring:
    """The partition that this worker measures: one at a time, without a part outside of runs."""

    def __init__(self, context: dict[str, Any] | None) -> None:
        self.part = None if context is None else begin_part(context, "task")


_measuring: _Measuring | None = None
_worker = WorkerParts(lambda _: None)


@forking.in_child
def _begin_anew() -> None:
    global _measuring  # of the child
    _measuring = None


def _begin(given: dict[str, Any] | None) -> _Measuring | None:
    global _measuring  # of this worker
    task = TaskContext.get()
    if task is None or _measuring is not None:
        return None
    configure_worker()
    # Spark has set the default handler of SIGTERM before each task of this process
    configure.watch_the_end()
    told = task.getLocalProperty(_PROPERTY)
    _measuring = _Measuring(json.loads(told) if told else given)
    return _measuring


def _end(measuring: _Measuring, parts: Accumulator[list[bytes]] | None) -> None:
    global _measuring  # of this worker
    _measuring = None
    if measuring.part is not None:
        measuring.part.__exit__(None, None, None)
        if parts is not None:
            parts.add([packed(measuring.part.data)])
    _worker.flush()


class _Parts(AccumulatorParam):  # type: ignore[misc]  # PySpark may be absent
    """Keeps parts in an executor, and folds them in the driver."""

    def zero(self, value: list[bytes]) -> list[bytes]:
        """Return no parts."""
        return []

    # the name is Spark's
    def addInPlace(self, value1: list[bytes], value2: list[bytes]) -> list[bytes]:  # noqa: N802
        """Add parts."""
        if TaskContext.get() is not None:
            return [*value1, *value2]
        for content in value2:
            try:
                fold(unpacked(content))
            except (TypeError, *UNREADABLE) as error:
                errors.warn_once("spark part", "what is no part is dropped: %r", error)
        return []


class _Driver:
    """The contexts of Spark in this process that were given measured functions."""

    def __init__(self) -> None:
        self._accumulators: WeakKeyDictionary[SparkContext, Accumulator[list[bytes]]]
        self._accumulators = WeakKeyDictionary()

    def accumulator(self) -> Accumulator[list[bytes]]:
        """Return what takes the parts of the current context of Spark."""
        context = SparkContext.getOrCreate()
        if context not in self._accumulators:
            self._accumulators[context] = context.accumulator([], _Parts())
            if self not in run_parts.engines:
                run_parts.engines.append(self)
        return self._accumulators[context]

    def opened(self, parts: RunParts) -> None:
        # a function that was pickled for an earlier run belongs to this one now
        self._set(parts.share())

    def ending(self, parts: RunParts, timeout_s: float) -> None:
        left = [each for each in open_runs() if each is not parts]
        self._set(left[-1].share() if left else None)

    def _set(self, context: dict[str, Any] | None) -> None:
        for spark in list(self._accumulators):
            try:
                spark.setLocalProperty(_PROPERTY, None if context is None else json.dumps(context))
            except Exception as error:  # it was stopped
                errors.logger.debug("a context of Spark takes no properties: %r", error)


_driver = _Driver()
