"""Fill the templates of `_page/`: everything on a page is escaped, and nothing on it runs."""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import text

if TYPE_CHECKING:
    from jinja2 import Environment


# where a long name may break: behind a separator, and before a capital letter or a number
_JOINTS: Final = re.compile(r"(?<=[_./:\\\-])(?=[^_./:\\\-])|(?<=[a-z])(?=[A-Z0-9])")
# between a number and its unit, where no line may end
_BEFORE_UNIT: Final = re.compile(r"(?<=\d) (?=(?:%|ns|µs|ms|s|min|h|B|[KMGT]iB)(?!\w))")


def page(template: str, data: dict[str, Any], **view: Any) -> str:
    """Return a template with what it shows, and the data for programs.

    Raises:
        ImportError: jinja2 is not installed.
    """
    return fragment(template, data=_Trusted(embeddable(data)), **view)


def fragment(template: str, **view: Any) -> str:
    """Return a template with what it shows.

    Raises:
        ImportError: jinja2 is not installed.
    """
    return _environment().get_template(template).render(view)


@functools.cache
def _environment() -> Environment:
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(
            'render("html") needs jinja2: pip install "otel-pipeline-metrics[cli]"'
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("otel_pipeline_metrics.report", "_page"),
        autoescape=True,
        auto_reload=False,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["jointed"] = _jointed
    return environment


class _Trusted(str):
    """Trusted text that jinja2 does not escape."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def _shown(value: Any) -> Any:
    """Replace control characters, and keep numbers on one line with their units.

    The page may be read in a terminal, or copied from.
    """
    if type(value) is not str:
        return value
    return _BEFORE_UNIT.sub("\u00a0", text.printable(value))


def _jointed(name: object) -> Any:
    """Mark where a name may break over two lines, if it must."""
    from markupsafe import Markup, escape

    parts = (escape(part) for part in _JOINTS.split(text.printable(name)))
    return Markup("<wbr>").join(parts)


def embeddable(data: dict[str, Any]) -> str:
    """Return the JSON, escaped so that no string in it can end its HTML element."""
    found = text.printable_json(json.dumps(data, ensure_ascii=False, allow_nan=False))
    for character in "<>&\u2028\u2029":
        found = found.replace(character, f"\\u{ord(character):04x}")
    return found
