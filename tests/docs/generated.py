"""Write tables into the documents from the code.

`python -m tests.docs.generated` writes them between their markers; a test compares. The last column
of the metrics is written by hand.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Final

import otel_pipeline_metrics as opm
from otel_pipeline_metrics._core import metric_definitions
from otel_pipeline_metrics._core.metric_definitions import Metric
from otel_pipeline_metrics._core.options import OPTIONS
from tests.docs.markdown import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONFIGURATION: Final = ROOT / "docs" / "configuration.md"
METRICS: Final = ROOT / "docs" / "metrics.md"

# of a metric that is new: a person says when it has no point
TO_BE_WRITTEN: Final = "to be written"

_BLOCK: Final = re.compile(
    r"(?P<begin><!-- generated: (?P<what>[^\n]+) -->\n\n).*?(?P<end>\n<!-- end of generated -->)",
    re.DOTALL,
)
# the names in each table begin with one of these
_METRICS: Final = {
    "metrics of runs": ("pipeline.run.", "pipeline.bottleneck"),
    "metrics of stages": (
        "pipeline.stage.",
        "pipeline.item.",
        "pipeline.watermark.",
        "pipeline.eventloop.",
    ),
    "metrics of queues": ("pipeline.queue.",),
    "metrics of limits": ("pipeline.limit.",),
    "metrics of caches": ("pipeline.cache.",),
    "metrics of operations and events": (
        "pipeline.operation.",
        "pipeline.event.",
        "pipeline.errors",
        "pipeline.breaker.",
        "pipeline.connection.",
    ),
    "metrics of health": (
        "pipeline.stalled",
        "pipeline.telemetry.",
        "pipeline.container.",
        "otel.sdk.",
    ),
    "metrics of the process and its host": ("process.", "system."),
}


def defined_metrics() -> list[Metric]:
    """Return every metric that the code defines."""
    return [value for value in vars(metric_definitions).values() if isinstance(value, Metric)]


def updated(text: str) -> str:
    """Return a document with its generated tables as the code has them now."""
    return _BLOCK.sub(
        lambda found: found["begin"] + _table(found["what"], _absent(text)) + found["end"], text
    )


def _absent(text: str) -> dict[str, str]:
    """Return when each metric has no point: the document's own column, which stays as it is."""
    return dict(re.findall(r"^\| `([\w.]+)` \|.*\|(?: ([^|]+))? \|$", text, re.MULTILINE))


def blocks(text: str) -> list[str]:
    """Return what the markers of a document name."""
    return [found["what"] for found in _BLOCK.finditer(text)]


def _table(what: str, absent: Mapping[str, str]) -> str:
    lines = [*(_options() if what == "options" else _metrics(_METRICS[what], absent))]
    rows = ["|" + "".join(f" {cell} |" if cell else " |" for cell in cells) for cells in lines]
    rule = "|" + "---|" * (rows[0].count("|") - 1)
    return "\n".join([rows[0], rule, *rows[1:]]) + "\n"


def meanings() -> dict[str, str]:
    """Return what the docstring of `configure()` says of each argument, as Markdown."""
    found = re.search(r"Args:\n(.*?)\n\n", inspect.cleandoc(opm.configure.__doc__ or ""), re.DOTALL)
    assert found is not None
    entries = re.findall(r"^    (\w+): (.*(?:\n     .*)*)", found[1], re.MULTILINE)
    return {name: _markdown(" ".join(text.split()).rstrip(".")) for name, text in entries}


def _markdown(text: str) -> str:
    text = re.sub(r"docs/([a-z-]+\.md)(#[a-z-]+)?", r"[\1](\1\2)", text)
    return re.sub(r'(?<![`\w])("[^"]+"|None|True|False|OTEL_[A-Z_]+)(?![`\w])', r"`\1`", text)


def _options() -> Iterator[tuple[str, ...]]:
    yield "argument", "default", "variable", "meaning"
    meaning = meanings()
    for option in OPTIONS:
        if option.name:
            variables = (option.variable,) if option.variable else option.standard
            default = _code(repr(option.default))
            yield _code(option.name), default, _code(*variables), meaning[option.name]


def _metrics(prefixes: tuple[str, ...], absent: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    of_stages = "pipeline.stage." in prefixes
    yield "metric", "kind", "unit", "more attributes" if of_stages else "attributes", "absent"
    for metric in defined_metrics():
        if metric.name.startswith(prefixes):
            attributes = _code(*metric.attributes)
            row = _code(metric.name), metric.kind, _code(metric.unit), attributes
            yield *row, absent.get(metric.name, TO_BE_WRITTEN)


def _code(*words: str) -> str:
    return ", ".join(f"`{word}`" for word in words)


def main() -> None:
    """Write the tables."""
    for path in (CONFIGURATION, METRICS):
        path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
