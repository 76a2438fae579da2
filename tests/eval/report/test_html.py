"""The page: safe with hostile text, self-contained, complete, accessible."""

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser

import pytest

from eval.report import Section
from eval.report.html import RENDERERS, render_html
from eval.report.marking import mark_spans
from eval.report.plots import colours_of, place_labels, scatter_svg

LOADING = {"src", "srcset", "data", "poster", "background", "action", "formaction", "ping", "manifest"}


class Page(HTMLParser):
    """Every element with its attributes, and the text between."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def page(report) -> Page:
    return Page(render_html(report))


def test_text_from_the_report_stays_text(page, hostile):
    assert len(page.all("script")) == 1
    assert all(not name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert [image["alt"] for image in page.all("img")] == [hostile]  # the one figure section
    assert not page.all("b")
    assert any(hostile in text for text in page.text)  # shown as it was written, {{ }} and all


def test_nothing_is_loaded_from_elsewhere(report):
    text = render_html(report)
    for tag, attributes in Page(text).elements:
        assert tag not in {"link", "iframe", "object", "embed", "base", "audio", "video"}
        for name, value in attributes.items():
            if name in LOADING:
                assert value is not None
                assert value.startswith("data:")
            if name in {"href", "xlink:href"}:
                assert value is not None
                assert value.startswith("#") or (tag == "a" and value.startswith("https://arxiv.org/abs/"))
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_only_our_own_script_may_run(page, report):
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    script = re.search(r"<script>(.*?)</script>", render_html(report), re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_every_section_type_has_a_renderer_and_is_drawn(report, page):
    drawn = {section.type for section in report.sections}
    assert (
        drawn == set(RENDERERS) == {"answers", "distribution", "figure", "list", "scatter", "series", "table"}
    )
    anchors = [attributes["id"] for attributes in page.all("section")]
    assert anchors == ["results", *(section.id for section in report.sections)]


def test_an_unknown_section_type_is_shown_as_its_data(report):
    report.sections.append(Section(id="new", title="New", type="hologram", data={"answer": 42}))
    text = render_html(report)
    assert "hologram" in text
    assert "&#34;answer&#34;: 42" in text


def test_an_image_of_another_type_is_not_embedded(report):
    bad = {"mime": "text/html", "base64": "PHNjcmlwdD4=", "alt": ""}
    report.sections[:] = [Section(id="bad", title="Bad", type="figure", data=bad)]
    assert not Page(render_html(report)).all("img")


def test_ids_are_unique(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_headers_have_scope_and_pictures_have_words(page):
    assert all("scope" in attributes for attributes in page.all("th"))
    pictures = [attributes for attributes in page.all("svg") if attributes.get("role") == "img"]
    assert len(pictures) == 8  # four pictures, each for two widths
    assert all(attributes["aria-labelledby"] for attributes in pictures)
    assert all(a.get("aria-hidden") == "true" or a.get("role") == "img" for a in page.all("svg"))


def test_leaked_spans_are_marked(page):
    assert len(page.all("mark")) == 30 + 1  # every answer of the target and one of npo
    leaked = [a for _, a in page.elements if a.get("data-leaked") == "1"]
    assert [a["data-method"] for a in leaked].count("npo") == 1


def test_pictures_keep_text_as_text_and_follow_the_theme(report):
    text = render_html(report)
    pictures = re.findall(r'<svg viewBox[^>]*role="img".*?</svg>', text, re.S)
    assert all("<text" in picture for picture in pictures)
    assert any("grun-npo</text>" in picture for picture in pictures)
    assert not re.search(r"#01010\d|#0102\d\d", text)
    assert "var(--series-2)" in text


def test_numbers_written_in_a_picture_are_not_cut():
    points = [
        {"name": "a", "label": "lr 0.00125", "kind": "weights", "role": "method", "x": 0.57, "y": 0.5},
        {"name": "b", "label": "b", "kind": "weights", "role": "method", "x": 0.6, "y": 0.6},
    ]
    data = {"x": {"label": "x"}, "y": {"label": "y"}, "points": points}
    picture = scatter_svg(data, colours={}, width=760, prefix="p", title="t", description="d")
    assert ">lr 0.00125</text>" in picture
    ticks = re.findall(r">([\d.]+)</text>", picture)
    assert len(ticks) > 6
    assert len(ticks) == len(set(ticks))


def test_the_same_report_gives_the_same_page(report):
    assert render_html(report) == render_html(report)


def test_one_evaluation_makes_a_page(report, runs, results):
    import dataclasses

    run = dataclasses.replace(runs[2], method="model")
    single = dataclasses.replace(
        report, kind="evaluate", runs=[run], results={"model": results["npo"]}, sections=[]
    )
    assert "Evaluation" in render_html(single)


@pytest.mark.parametrize(
    ("text", "spans", "pieces"),
    [
        ("Born in Port Sorell.", ["port sorell"], [("Born in ", False), ("Port Sorell", True), (".", False)]),
        ("Port\n  Sorell", ["Port Sorell"], [("Port\n  Sorell", True)]),
        ("Annex and Ann", ["Ann"], [("Annex and ", False), ("Ann", True)]),
        ("the 1907s", ["1907"], [("the ", False), ("1907", True), ("s", False)]),
        (
            "Hear José O’Neil-Roy!",
            ["jose oneil"],
            [("Hear ", False), ("José O’Neil", True), ("-Roy!", False)],
        ),
        ("in Por\u200bto.", ["Porto"], [("in ", False), ("Por\u200bto.", True)]),
        ("Glass-blower", ["glass blower"], [("Glass-blower", True)]),
        ("ab cd ef", ["ab cd", "cd ef"], [("ab cd", True), (" ef", True)]),
        ("a.c abc", ["a.c"], [("a.c", True), (" abc", False)]),
        ("50 %", ["%"], [("50 ", False), ("%", True)]),
        ("nothing", ["", "x"], [("nothing", False)]),
        ("", [], [("", False)]),
    ],
)
def test_spans_are_found_whatever_case_and_spacing(text, spans, pieces):
    assert mark_spans(text, spans) == pieces
    assert "".join(piece for piece, _ in pieces) == text


def test_labels_do_not_cover_each_other():
    points = [(200.0, 100.0), (204.0, 101.0), (199.0, 97.0), (202.0, 104.0)]
    corners = place_labels(points, [(60.0, 14.0)] * 4, (0.0, 0.0, 400.0, 300.0))
    boxes = [(x, y, x + 60, y + 14) for x, y in corners]
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])


def test_more_methods_than_colours_still_draw():
    names = [f"m{i}" for i in range(25)]
    points = [
        {"name": n, "label": n, "kind": "weights", "role": "method", "x": i / 25, "y": 0.5}
        for i, n in enumerate(names)
    ]
    data = {"x": {"label": "x"}, "y": {"label": "y"}, "points": points}
    colours = colours_of([(n, "method") for n in names])
    picture = scatter_svg(data, colours=colours, width=760, prefix="p", title="t", description="d")
    assert all(f">{n}</text>" in picture for n in names)


def test_sections_of_one_kind_share_an_entry_of_the_navigation(report):
    titles = {"gate-when": "Gates: when", "gate-how": "Gates: how far", "dynamics-a": "A", "dynamics-b": "B"}
    sections = [
        Section(id=name, title=title, type="list", data={"items": ["a"]}) for name, title in titles.items()
    ]
    page = render_html(dataclasses.replace(report, sections=sections))
    assert re.findall(r'<li><a href="#([^"]+)">([^<]+)', page) == [
        ("results", "Results"),
        ("gate-when", "Gates"),
        ("dynamics-a", "Along the steps"),
    ]
    assert page.count("<section id=") == 1 + len(titles)
