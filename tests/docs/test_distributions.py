"""The files in wheel and sdist, and the README as PyPI shows it."""

from __future__ import annotations

import email
import io
import re
import subprocess
import sys
import tarfile
import zipfile
from typing import TYPE_CHECKING, NamedTuple

import pytest
from readme_renderer import markdown

from tests.docs.markdown import ROOT, links

if TYPE_CHECKING:
    from email.message import Message
    from pathlib import Path

pytestmark = pytest.mark.slow

PACKAGE = "otel_pipeline_metrics"


class Built(NamedTuple):
    """A wheel and an sdist of this checkout."""

    wheel: frozenset[str]
    sdist: frozenset[str]
    """Paths below the sdist's only folder."""
    metadata: Message
    entry_points: str
    archive: Path
    """The sdist itself."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build both without a network; the wheel is built from the sdist, as pip does."""
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    (sdist,) = out.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = frozenset(archive.namelist())
        (folder,) = {name.partition("/")[0] for name in names if ".dist-info/" in name}
        metadata = email.message_from_bytes(archive.read(f"{folder}/METADATA"))
        entry_points = archive.read(f"{folder}/entry_points.txt").decode()
    with tarfile.open(sdist) as tar:
        paths = frozenset(name.partition("/")[2] for name in tar.getnames())
    return Built(names, paths, metadata, entry_points, sdist)


def files_below(*folders: str) -> set[str]:
    """Return what lies in this checkout; files of programs that ran here are left out."""
    return {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_has_the_package_and_the_licence(built: Built) -> None:
    package = {name for name in built.wheel if ".dist-info/" not in name}
    assert package == files_below(PACKAGE)
    assert f"{PACKAGE}/py.typed" in package
    assert any(name.endswith(".jinja") for name in package)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in built.wheel)


def test_the_sdist_has_what_the_tests_need(built: Built) -> None:
    folders = (PACKAGE, "tests", "docs", "examples", "benchmarks", "collector-config", ".ci")
    assert files_below(*folders) <= built.sdist
    single = {"LICENSE", "Makefile", "README.md", "CHANGELOG.md", "CONTRIBUTING.md"}
    assert single | {"pyproject.toml", "PKG-INFO"} <= built.sdist


def test_the_sdist_has_nothing_else(built: Built) -> None:
    top = {path.partition("/")[0] for path in built.sdist if path}
    assert top <= {
        *(path.name for path in ROOT.iterdir()),
        "PKG-INFO",
    }
    assert not [path for path in built.sdist if re.search(r"\.pyc$|(^|/)\.venv|\.egg-info", path)]


def test_the_command_has_two_names(built: Built) -> None:
    for name in ("otel-pipeline-metrics", "opm"):
        assert f"{name} = {PACKAGE}.cli:main" in built.entry_points.splitlines()


def test_the_licence_is_named(built: Built) -> None:
    assert built.metadata["License-Expression"] == "Apache-2.0"
    assert built.metadata.get_all("License-File") == ["LICENSE"]


def description(built: Built) -> str:
    text = built.metadata.get_payload(decode=True)
    assert isinstance(text, bytes)
    return text.decode("utf-8")


def test_pypi_renders_the_readme(built: Built) -> None:
    assert built.metadata["Description-Content-Type"] == "text/markdown"
    warnings = io.StringIO()
    html = markdown.render(description(built), stream=warnings)
    assert html is not None
    assert warnings.getvalue() == ""
    assert html.count("<table>") >= 1
    assert "<pre" in html


def test_no_link_on_pypi_is_relative(built: Built) -> None:
    """Links to files become paths; the rest of the README is unchanged."""
    html = markdown.render(description(built))
    assert html is not None
    targets = re.findall(r'href="([^"]+)"', html)
    anchors = set(re.findall(r'id="([^"]+)"', html))
    assert [t for t in targets if "://" not in t and t[1:] not in anchors] == []
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    as_words = re.sub(r"!\[([^\]\n]+)\]\(((?!https?://)[^)\s]+)\)", r"*\1: `\2`*", readme)
    as_paths = re.sub(r"\[([^\]\n]+)\]\((?!https?://|#)[^)\s]+\)", r"`\1`", as_words)
    assert description(built).strip() == as_paths.strip()


def test_the_readme_names_the_files_that_it_links_to(built: Built) -> None:
    """A sentence still makes sense with the path alone, and the sdist has that file."""
    readme = ROOT / "README.md"
    files = [target for target in links(readme) if "://" not in target and target[0] != "#"]
    assert len(files) > 5
    for target in files:
        path = target.partition("#")[0]
        text = readme.read_text(encoding="utf-8")
        assert f"[{path}]({target})" in text or path.startswith("docs/images/")
        assert path in built.sdist


def test_an_unpacked_sdist_collects_its_tests(built: Built, tmp_path: Path) -> None:
    """The sdist has all that the tests import; a release runs all of them there."""
    with tarfile.open(built.archive) as tar:
        tar.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
