"""The dashboards that the package brings: their JSON, their names, and the command."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from otel_pipeline_metrics.cli.app import app
from tests.dashboards.panels import DASHBOARDS, Dashboard
from tests.dashboards.test_rules import ALERTS

if TYPE_CHECKING:
    from pathlib import Path

each = pytest.mark.parametrize("spec", DASHBOARDS, ids=lambda spec: spec.name)


def text_of(spec: Dashboard) -> str:
    folder = files("otel_pipeline_metrics.dashboards")
    return folder.joinpath(f"{spec.name}.json").read_text(encoding="utf-8")


@each
def test_the_package_has_what_the_script_builds(spec: Dashboard) -> None:
    pytest.importorskip("grafana_foundation_sdk", reason="the SDK needs Python 3.11")
    from tests.dashboards.build import text

    assert text_of(spec) == text(spec), "run python -m tests.dashboards.build"


def lacks(read: object, ours: object, path: str = "") -> list[str]:
    """Return the places where something of ours is missing, or is something else."""
    if isinstance(ours, dict) and isinstance(read, dict):
        return [
            place
            for key, value in ours.items()
            for place in lacks(read.get(key), value, f"{path}/{key}")
        ]
    if isinstance(ours, list) and isinstance(read, list) and len(ours) == len(read):
        return [
            place
            for number, value in enumerate(ours)
            for place in lacks(read[number], value, f"{path}/{number}")
        ]
    return [] if read == ours else [f"{path}: {read!r:.80}, not {ours!r:.80}"]


@each
def test_grafanas_own_types_know_every_field(spec: Dashboard) -> None:
    """They read it and write it again; what they add are their defaults."""
    pytest.importorskip("grafana_foundation_sdk", reason="the SDK needs Python 3.11")
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard as Model

    plugins.register_default_plugins()
    ours = json.loads(text_of(spec))
    again = json.loads(json.dumps(Model.from_json(ours), cls=JSONEncoder))
    assert lacks(again, ours) == []
    ours["panels"][1]["unheard_of"] = 1
    again = json.loads(json.dumps(Model.from_json(ours), cls=JSONEncoder))
    assert lacks(again, ours) == ["/panels/1/unheard_of: None, not 1"]


@each
def test_panels_have_what_a_reader_needs(spec: Dashboard) -> None:
    """A unit, a description, queries of their own, and places that do not overlap."""
    panels: list[dict[str, Any]] = json.loads(text_of(spec))["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not taken & cells, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"]
            assert panel["targets"]
            assert panel["fieldConfig"]["defaults"]["unit"]
    titles = [panel["title"] for panel in panels]
    assert len(set(titles)) == len(titles)
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_every_alert_is_on_a_dashboard() -> None:
    assert {alert for spec in DASHBOARDS for alert in spec.alerts} == set(ALERTS)


def test_the_command_writes_them(tmp_path: Path) -> None:
    for _ in range(2):
        done = CliRunner().invoke(app, ["dashboards", str(tmp_path / "new" / "folder")])
        assert done.exit_code == 0, done.output
    written = {path.name: path.read_text("utf-8") for path in (tmp_path / "new/folder").iterdir()}
    assert written == {
        f"otel-pipeline-metrics-{spec.name}.json": text_of(spec) for spec in DASHBOARDS
    }
    assert len({json.loads(text)["uid"] for text in written.values()}) == 3


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = CliRunner().invoke(app, ["dashboards", str(tmp_path / "file")])
    assert done.exit_code == 2
    assert "cannot write" in done.output
    assert "Traceback" not in done.output
