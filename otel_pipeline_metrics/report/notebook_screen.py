"""Show views in one output of a notebook's cell."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics.report.screen import Screen

if TYPE_CHECKING:
    from rich.console import RenderableType

    from otel_pipeline_metrics.report.screen import View


NOTEBOOK_COLUMNS: Final = 110


class NotebookScreen(Screen):
    """The views in one output of a notebook's cell, which is updated."""

    def begin(self) -> None:
        """Show the first picture on the thread of the cell, to which the output belongs."""
        if self._thread is None:
            from IPython.display import display

            shown = self._bundle(self._pictures())
            show_once: Any = display
            self._handle: Any = show_once(shown, raw=True, display_id=True)
        super().begin()

    def _draw(self, pictures: list[RenderableType]) -> None:
        if pictures:
            self._handle.update(self._bundle(pictures), raw=True)

    def _bundle(self, pictures: list[RenderableType]) -> dict[str, str]:
        plain = self._rendered(pictures, NOTEBOOK_COLUMNS)
        style = "line-height:1.2;white-space:pre;overflow-x:auto"
        return {
            "text/plain": plain,
            "text/html": f'<pre style="{style}">{html.escape(plain)}</pre>',
        }

    def leave(self, view: View) -> None:
        """Show the end of a view, which stays in the output."""
        with errors.suppress_errors("the live view"):
            last = view()
            self._draw([*self._pictures(), *([] if last is None else [last])])

    def _stand_in(self) -> None:
        """Do nothing: a notebook keeps its outputs apart."""
