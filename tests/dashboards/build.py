"""Write the dashboards as Grafana's JSON: `python -m tests.dashboards.build`.

It needs grafana-foundation-sdk in the version that `pyproject.toml` pins. The JSON is part of the
package, so that users need nothing of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from grafana_foundation_sdk.builders import common as shared
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import (
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models import prometheus as models

from otel_pipeline_metrics import dashboards as package
from tests.dashboards.panels import DASHBOARDS, Dashboard
from tests.dashboards.queries import Panel, Query

if TYPE_CHECKING:
    from grafana_foundation_sdk.cog.builder import Builder

FOLDER: Final = Path(package.__file__).parent
TAG: Final = "otel-pipeline-metrics"
SOURCE: Final = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
# Jaeger's page; Grafana fills in the times in milliseconds, Jaeger takes microseconds.
TRACES: Final = (
    "${traces}/search?service=${__field.labels.job}"
    "&operation=${__field.labels.pipeline_stage_name}&start=${__from}000&end=${__to}000"
)
_PANELS: Final = {
    "stat": stat.Panel,
    "timeseries": timeseries.Panel,
    "heatmap": heatmap.Panel,
    "statetimeline": statetimeline.Panel,
    "table": table.Panel,
}
_HEIGHT: Final = {"stat": 5, "table": 5}


def _target(query: Query, number: int, kind: str) -> prometheus.Dataquery:
    target = (
        prometheus.Dataquery()
        .expr(query.expr)
        .legend_format(query.legend)
        .ref_id("ABCDEFGH"[number])
        .editor_mode(models.QueryEditorMode.CODE)
        .datasource(SOURCE)
    )
    if kind == "heatmap":
        target.format(models.PromQueryFormat.HEATMAP)
    if kind == "table":
        return target.format(models.PromQueryFormat.TABLE).instant()
    if "histogram_quantile" in query.expr:
        target.exemplar(True)
    return target.range()


def _panel(panel: Panel) -> Builder[dashboard.Panel]:
    made: Any = _PANELS[panel.kind]()
    made.title(panel.title).description(panel.description).datasource(SOURCE)
    made.unit(panel.unit).span(panel.width).height(_HEIGHT.get(panel.kind, 8))
    if panel.unit == "percentunit":
        made.min(0).max(1)
    if panel.kind == "timeseries":
        made.legend(
            shared.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        if panel.unit != "percentunit":
            made.min(0)
    if panel.kind == "heatmap":
        made.calculate(False)
        made.y_axis(heatmap.YAxisConfig().unit(panel.unit))
    if panel.kind == "statetimeline":
        steps = [dashboard.Threshold(color="transparent"), dashboard.Threshold(1, "orange")]
        made.color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
        made.thresholds(
            builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)
        )
    if panel.is_stacked:
        made.fill_opacity(30)
        made.stacking(shared.StackingConfig().mode(common.StackingMode.NORMAL))
    if panel.has_stage:
        link = builders.DashboardLink("Traces of ${__field.labels.pipeline_stage_name}")
        made.data_links(
            [link.type(dashboard.DashboardLinkType.LINK).url(TRACES).target_blank(True)]
        )
    for number, query in enumerate(panel.queries):
        made.with_target(_target(query, number, panel.kind))
    built: Builder[dashboard.Panel] = made
    return built


def _alerts(spec: Dashboard) -> Panel:
    return Panel(
        "Firing alerts",
        "Of `opm rules`; docs/alerts.md says what to do about each.",
        "short",
        (Query(spec.alerts_expr, ""),),
        kind="table",
        width=6 if spec.name == "pipeline" else 24,
    )


def _variables(made: builders.Dashboard, spec: Dashboard) -> None:
    made.with_variable(
        builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    )
    for variable in spec.variables:
        made.with_variable(
            builders.QueryVariable(variable.name)
            .label(variable.text)
            .query(variable.query)
            .datasource(SOURCE)
            .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(dashboard.VariableOption(selected=True, text="All", value="$__all"))
        )
    if any(panel.has_stage for row in spec.rows.values() for panel in row):
        made.with_variable(
            builders.TextBoxVariable("traces")
            .label("Jaeger")
            .default_value("http://127.0.0.1:16686")
        )


def build(spec: Dashboard) -> dashboard.Dashboard:
    """Return the dashboard as the SDK's own type."""
    made = (
        builders.Dashboard(f"{spec.title} (otel-pipeline-metrics)")
        .uid(f"opm-{spec.name}")
        .description(spec.description)
        .tags([TAG])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .link(
            builders.DashboardLink("Other dashboards")
            .type(dashboard.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .annotation(
            builders.AnnotationQuery()
            .name("Firing alerts")
            .datasource(SOURCE)
            .enable(True)
            .icon_color("red")
            .expr(spec.alerts_expr)
        )
    )
    _variables(made, spec)
    for number, (title, panels) in enumerate(spec.rows.items()):
        made.with_row(builders.Row(title))
        if number == 0:
            made.with_panel(_panel(_alerts(spec)))
        for panel in panels:
            made.with_panel(_panel(panel))
    built = made.build()
    for number, each in enumerate(built.panels or (), start=1):
        each.id_val = number
    return built


def text(spec: Dashboard) -> str:
    """Return the dashboard as JSON."""
    return json.dumps(build(spec), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def main() -> None:
    """Write all of them into the package."""
    for spec in DASHBOARDS:
        (FOLDER / f"{spec.name}.json").write_text(text(spec), encoding="utf-8")


if __name__ == "__main__":
    main()
