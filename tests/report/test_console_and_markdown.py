"""The console and Markdown renderers, to the letter."""

from __future__ import annotations

from typing import Any

import pytest

from otel_pipeline_metrics.report import RunReport
from otel_pipeline_metrics.report.flow import verdict_in_words
from otel_pipeline_metrics.report.markdown import escaped
from tests.report import samples

CONSOLE = """\
run nightly: success in 20.0 s; write holds the run back (98 % busy)
  write is busy 98 % of the time, and process is blocked on it for 74 %.
  With 1 more worker of write, 90 to 100 % more throughput; it is the limit even then.
  Add workers to write, or make each call of it shorter.
3 stages, 3 errors, high confidence, trace 0af7651916cd43dd8448eb211c80319c

stage    kind     duration  count  items  avg/item  items/s      p50      p95      p99      \
max  busy  idle  blocked                                            errors
fetch    fetch      2.10 s  1,000  1,000   2.10 ms       50  2.01 ms  3.31 ms  4.05 ms  5.06 \
ms  10 %   0 %     90 %                                                 0
process  process    5.15 s  1,000    998   5.16 ms     49.9  4.94 ms  7.52 ms  9.18 ms  10.8 \
ms  25 %   1 %     74 %  3 (ValueError 2, json.decoder.JSONDecodeError 1)
write    write      19.6 s  1,000  1,000   19.6 ms       50  19.6 ms  23.0 ms  25.0 ms  30.1 \
ms  98 %   2 %      0 %                                                 0

queue   depth avg  peak  capacity  items  wait p50  wait p95  put blocked
pages         3.7     4         4  1,000   75.0 ms   75.0 ms       13.5 s
parsed        3.9     4         4    998   78.1 ms   89.8 ms       13.5 s

cpu             avg 31 %       peak 47 %
memory (rss)    avg 57.2 MiB   peak 77.2 MiB
disk            read 16.3 MiB  write 6.51 MiB
GIL             held 62 %      190 samples
wait for a CPU  at 5 %         95 samples

cache  hits  misses  hit ratio  if half  if twice  if 4 times  evictions  expirations  entries
geo     900     100       90 %     80 %      95 %           -          7            -       93

telemetry of this process so far: 1 span dropped, 6 metric points dropped, 2 attributes with a \
forbidden key left out, 1 message cut"""

MARKDOWN = """\
### nightly: success in 20.0 s

3 stages, 3 errors, trace `0af7651916cd43dd8448eb211c80319c`

> **write holds the run back (98 % busy)**, high confidence
> write is busy 98 % of the time, and process is blocked on it for 74 %.
> - With 1 more worker of write, 90 to 100 % more throughput; it is the limit even then.
> - Add workers to write, or make each call of it shorter.

| stage | kind | count | items | p50 | p95 | p99 | max | total | busy | idle | blocked | \
errors |
| :--- | :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| fetch | fetch | 1,000 | 1,000 | 2.01 ms | 3.31 ms | 4.05 ms | 5.06 ms | 2.10 s | 10 % | 0 % \
| 90 % | 0 |
| process | process | 1,000 | 998 | 4.94 ms | 7.52 ms | 9.18 ms | 10.8 ms | 5.15 s | 25 % | 1 \
% | 74 % | 3 (ValueError 2, json.decoder.JSONDecodeError 1) |
| **write** (bottleneck) | write | 1,000 | 1,000 | 19.6 ms | 23.0 ms | 25.0 ms | 30.1 ms | \
19.6 s | 98 % | 2 % | 0 % | 0 |

| queue | depth avg | peak | capacity | items | wait p50 | wait p95 | put blocked |
| :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| pages | 3.7 | 4 | 4 | 1,000 | 75.0 ms | 75.0 ms | 13.5 s |
| parsed | 3.9 | 4 | 4 | 998 | 78.1 ms | 89.8 ms | 13.5 s |

| resource |  |  |
| :--- | :--- | :--- |
| cpu | avg 31 % | peak 47 % |
| memory (rss) | avg 57.2 MiB | peak 77.2 MiB |
| disk | read 16.3 MiB | write 6.51 MiB |
| network (host) | receive - | transmit - |
| GIL | held 62 % | 190 samples |
| wait for a CPU | at 5 % | 95 samples |

| cache | hits | misses | hit ratio | if half | if twice | if 4 times | evictions | \
expirations | entries |
| :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| geo | 900 | 100 | 90 % | 80 % | 95 % | - | 7 | - | 93 |

telemetry of this process so far: 1 span dropped, 6 metric points dropped, 2 attributes with a \
forbidden key left out, 1 message cut
"""


def test_the_console_format() -> None:
    assert samples.full().render("console") == CONSOLE


def test_the_console_format_of_a_minimal_report() -> None:
    expected = (
        "run empty: in progress in -\n0 stages, 0 errors\n\nno stage ran\n\nresources: not sampled"
    )
    assert expected == samples.bare().render("console")


def test_the_console_format_leaves_unknown_states_out() -> None:
    found = samples.report(samples.stage("load", [0.5, 0.5], kind=None)).render("console")
    expected = (
        "stage  kind  duration  count  items  avg/item     p50     p95     p99     max  errors\n"
        "load   -       1.00 s      2      -    500 ms  500 ms  500 ms  500 ms  500 ms       0"
    )
    assert expected in found
    assert "verdict" not in found


def test_a_name_cannot_control_the_terminal() -> None:
    found = samples.report(samples.stage("a\x1b[2Jb\nc", [1.0])).render("console")
    assert "a\ufffd[2Jb\ufffdc" in found


def test_the_markdown_format() -> None:
    assert samples.full().render("markdown") == MARKDOWN


def test_the_markdown_format_of_a_minimal_report() -> None:
    expected = (
        "### empty: in progress in -\n\n"
        "0 stages, 0 errors\n\n"
        "> **What limits the run is not known**\n\n"
        "No stage ran.\n\n"
        "Resources were not sampled.\n"
    )
    assert expected == samples.bare().render("markdown")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("parse_module", "parse_module"),
        ("a|b", r"a\|b"),
        ("`x`", r"\`x\`"),
        ("_x_", r"\_x\_"),
        ("**b**", r"\*\*b\*\*"),
        ("[a](b)", r"\[a\](b)"),
        ("<b>&amp;", r"\<b\>\&amp;"),
        ("two\nlines", "two lines"),
        ("back\\slash", r"back\\slash"),
    ],
)
def test_markup_in_a_name_is_escaped(name: str, expected: str) -> None:
    assert expected == escaped(name)


def test_the_tables_of_a_hostile_report_keep_their_columns() -> None:
    lines = samples.hostile().render("markdown").splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    # a column ends at a bar without a backslash before it
    columns = [line.replace(r"\|", "").count("|") for line in rows]
    assert columns == [14] * 5 + [9] * 4 + [4] * 8 + [11] * 3
    assert not any("<script" in line.replace(r"\<script", "") for line in rows)


def test_a_trace_id_with_backticks_is_still_code() -> None:
    made = samples.data()
    made["run"]["trace_id"] = "a``b"
    assert "trace ``` a``b ```" in RunReport(made).render("markdown")


def test_stages_and_queues_are_in_the_order_of_the_flow() -> None:
    stages = [samples.stage(name, [1.0], kind=None) for name in ("c", "a", "b")]
    queues = [samples.queue("2", ["b"], ["c"]), samples.queue("1", ["a"], ["b"])]
    found = samples.report(*stages, queues=queues).render("markdown")
    assert found.index("| a |") < found.index("| b |") < found.index("| c |")
    assert found.index("| 1 |") < found.index("| 2 |")


def test_all_stages_of_a_circle_are_shown() -> None:
    stages = [samples.stage(name, [1.0]) for name in ("a", "b")]
    queues = [samples.queue("x", ["a"], ["b"]), samples.queue("y", ["b"], ["a"])]
    found = samples.report(*stages, queues=queues)
    assert all(f"\n{name} " in found.render("console") for name in ("a", "b", "x", "y"))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("source", "The source limits the run, not a stage"),
        ("cpu", "The CPU limits the run"),
        ("event loop", "a holds up the event loop"),
        ("gil", "The GIL limits the run: one thread at a time runs Python"),
        ("machine", "The machine is busy with other programs, which slows the run"),
        ("serial", "a takes the largest part of a run in which little overlaps"),
        ("skew", "One worker of a has most of its work"),
        ("limit", "The limit of something inside of a holds the run back"),
        ("undecorated", "A step that is no stage holds the run back"),
        ("errors", "Errors and retries of a hold the run back"),
        ("workers", "a has too few workers (90 % busy)"),
        ("tie", "a and b hold the run back alike (90 % busy)"),
        ("unknown", "What limits the run is not known"),
        ("something new", "What limits the run is not known"),
    ],
)
def test_every_kind_of_verdict_is_a_sentence(kind: str, expected: str) -> None:
    made = samples.data()
    made["bottleneck"] = {"kind": kind, "stage": "a", "ties": ["b"] * (kind == "tie"), "busy": 0.9}
    assert f"> **{expected}**" in RunReport(made).render("markdown")


@pytest.mark.parametrize(
    ("what_if", "expected"),
    [
        # of schema 1
        (
            {"more_workers": 2, "gain": 0.5, "next": None},
            "With 2 more workers of a, about 50 % more throughput.",
        ),
        (
            [{"change": "faster", "name": "a", "by": 2, "gain": [0.2, 0.31], "next": "b"}],
            "With a twice as fast, 20 to 31 % more throughput; then b is next.",
        ),
        (
            [{"change": "limit", "name": "slots", "by": 2, "gain": [0.5, 1.0], "next": "slots"}],
            "With twice what slots allows, 50 to 100 % more throughput; it is the limit even then.",
        ),
        (
            [{"change": "errors", "name": "a", "by": None, "gain": [1.0, 1.0], "next": None}],
            "Without failures of a, about 100 % more throughput.",
        ),
        ([{"change": "something new", "name": "a", "gain": [1.0, 1.0]}], None),
        ([{"change": "faster", "name": "a", "gain": "?"}], None),
        (None, None),
        ({"more_workers": 1}, None),
    ],
)
def test_what_a_change_gains_is_a_sentence(what_if: Any, expected: str | None) -> None:
    found = verdict_in_words({"kind": "stage", "stage": "a", "what_if": what_if})

    assert found.what_if == expected
