"""The gate's table and picture: rates, AUROC and threshold by hand."""

from dataclasses import replace

import numpy as np
import pytest

from eval.report.gate_section import GateReadings, gate_sections, gates_together, threshold_at
from eval.report.report import BenchmarkInfo, Report, Section, now


def _readings():
    two = lambda *values: np.array([[v, 1 - v] for v in values], dtype=np.float32)  # noqa: E731
    return [
        GateReadings(split="forget", should_open=True, values=two(0.9, 0.8, 0.3, 0.7)),
        GateReadings(split="retain", should_open=False, values=two(0.1, 0.2, 0.6, 0.0)),
        GateReadings(split="nothing", should_open=False, values=np.zeros((0, 2), dtype=np.float32)),
    ]


def test_rates_auroc_and_threshold():
    """Of the 16 pairs 0.3 < 0.6 alone is the wrong way round: AUROC 15/16; above 0.6 stand 3 of 4."""
    table, picture = gate_sections("grun-npo", _readings(), [4, 7])
    forget, retain = table.data["rows"]
    assert (forget["n"], forget["fires_0"], retain["fires_0"]) == (4, 0.75, 0.25)
    assert (forget["fires_1"], retain["fires_1"]) == (0.25, 0.75)
    assert forget["mean_0"] == pytest.approx(0.675)
    assert (
        "layer 4: AUROC 0.9375; at threshold 0.600 at most 2 % of the innocent prompts and 75.0 %"
        in table.caption
    )
    assert "layer 7: AUROC 0.0625" in table.caption
    lines = {line["name"]: dict(zip(line["x"], line["y"], strict=True)) for line in picture.data["lines"]}
    assert (lines["retain"][0.0], lines["retain"][0.25], lines["retain"][1.0]) == (0.25, 0.75, 1.0)
    assert lines["forget"][0.5] == 0.25


def test_equal_layers_are_shown_once():
    values = np.array([[0.9, 0.9], [0.2, 0.2]], dtype=np.float32)
    table, _ = gate_sections(
        "g",
        [
            GateReadings(split="forget", should_open=True, values=values[:1]),
            GateReadings(split="retain", should_open=False, values=values[1:]),
        ],
        [0, 1],
    )
    assert [c["key"] for c in table.data["columns"]] == ["split", "wanted", "n", "fires_0", "mean_0"]
    assert table.data["columns"][3]["label"] == "Fires, every edited layer"


def test_the_threshold_lets_at_most_the_rate_through():
    innocent = np.linspace(0, 1, 101, dtype=np.float32)
    assert (innocent > threshold_at(innocent, 0.02)).mean() <= 0.02
    assert (innocent > threshold_at(innocent, 0.02) - 0.011).mean() > 0.02
    assert threshold_at(innocent, 0.0) == 1.0


def test_a_report_draws_them(tmp_path):
    report = Report(kind="evaluate", name="gates", created=now(), benchmark=BenchmarkInfo(name="world"))
    report.sections.extend(gate_sections("grun-npo", _readings(), [4, 7]))
    report.save(tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "how far the gate opens" in page
    assert page.count("<svg") >= 1


def test_gates_of_several_methods_stand_under_one_heading():
    """a and b opened alike, c did not: two captions, two pictures, the rows of two groups; the rest stays first."""
    other = Section(id="settings", title="Settings", type="list", data={"items": []})
    different = [replace(reading, values=reading.values / 2) for reading in _readings()]
    alone = gate_sections("c", different, [4, 7])
    given = [
        *gate_sections("a", _readings(), [4, 7]),
        other,
        *alone,
        *gate_sections("b", _readings(), [4, 7]),
    ]
    first, table, *pictures = gates_together(given)
    assert first == other
    assert [row["method"] for row in table.data["rows"]] == ["a, b", "a, b", "c", "c"]
    assert [row["fires_0"] for row in table.data["rows"]] == [0.75, 0.25, 0.0, 0.0]
    assert table.data["columns"][0]["key"] == "method"
    assert table.caption.startswith("a, b: A gate")
    assert " c: A gate" in table.caption
    assert [picture.title for picture in pictures] == [
        "Gates: how far they open (a, b)",
        "Gates: how far they open (c)",
    ]
    assert gates_together([other, *alone]) == [other, *alone]
