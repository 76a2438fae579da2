"""`report.md`: tables that stay tables whatever their cells hold."""

import re

from eval.report.markdown import markdown_table, render_markdown


def _cells(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line)[1:-1]


def test_every_table_has_as_many_cells_in_each_row(report):
    text = render_markdown(report)
    blocks = [b.splitlines() for b in text.split("\n\n") if b.startswith("|")]
    assert len(blocks) >= 8
    for block in blocks:
        width = len(_cells(block[0]))
        assert all(len(_cells(line)) == width for line in block)
        assert all(re.fullmatch(r" -{3}:? ", cell) for cell in _cells(block[1]))


def test_the_main_table_marks_the_best_and_names_what_is_not_comparable(report):
    text = render_markdown(report)
    assert "**0.250** (0.23–0.27)" in text
    assert "not comparable" in next(line for line in text.splitlines() if line.startswith("| guard"))


def test_hostile_text_cannot_become_markup(report):
    text = render_markdown(report)
    assert "<script" not in re.sub(r"\\<", "", text)
    assert not re.search(r"(?<!\\)<img", text)


def test_cells_are_escaped():
    table = markdown_table(["a|b", "n"], [["x\ny | *z*", "1"]], numeric=[1])
    assert table.splitlines() == ["| a\\|b | n |", "| --- | ---: |", "| x y \\| \\*z\\* | 1 |"]


def test_every_section_appears(report):
    text = render_markdown(report)
    assert text.count("\n## ") == len(report.sections)
    assert "25 more questions are in report.html." in text
