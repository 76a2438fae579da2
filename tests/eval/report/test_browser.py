"""The page in a real browser: the filter works, hostile text does not run."""

import re
import shutil
import subprocess

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=4000",
)

DRIVER = """
<script>
addEventListener("load", () => {
  const form = document.querySelector(".controls"), seen = {};
  const visible = (selector) => [...document.querySelectorAll(selector)].filter((n) => n.offsetParent !== null);
  const look = (name) => {
    form.dispatchEvent(new Event("input", {bubbles: true}));
    seen[name] = {
      cards: visible(".card").length,
      methods: [...new Set(visible(".card .answer[data-role=method]").map((n) => n.dataset.method))],
      leaked: visible(".card .answer[data-role=method] mark").length,
      count: form.querySelector(".count").textContent,
      none: visible(".answers .none").length,
    };
  };
  look("start");
  document.querySelector(".more button").click(); look("reset");
  form.elements.leaked.checked = true; look("leaked");
  form.elements.method.value = "guard"; look("leakedGuard");
  form.elements.leaked.checked = false; look("guard");
  form.elements.method.value = ""; form.elements.text.value = "PERSON 17 "; look("search");
  form.elements.text.value = "nowhere to be found"; look("nothing");
  seen.title = document.title;
  seen.overflow = document.documentElement.scrollWidth - innerWidth;
  const out = document.createElement("pre");
  out.id = "seen"; out.textContent = JSON.stringify(seen); document.body.append(out);
});
</script>
"""


@pytest.fixture(scope="module")
def chromium() -> str:
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("needs chromium: no chromium, chromium-browser or google-chrome on the PATH")
    return path


def _run(chromium: str, profile, *arguments: str) -> str:
    command = [chromium, *FLAGS, f"--user-data-dir={profile}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.fixture
def seen(report, chromium, tmp_path):
    """What a script that plays the reader saw; the policy is lifted for that script alone."""
    import html
    import json

    page = report.save(tmp_path).read_text(encoding="utf-8")
    played = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page).replace(
        "</body>", DRIVER + "</body>"
    )
    path = tmp_path / "played.html"
    path.write_text(played, encoding="utf-8")
    dom = _run(chromium, tmp_path / "profile", "--window-size=390,844", "--dump-dom", path.as_uri())
    return json.loads(html.unescape(re.search(r'<pre id="seen">(.*?)</pre>', dom, re.S).group(1)))


def test_the_reader_can_filter_and_nothing_hostile_runs(seen, hostile):
    assert seen["start"]["cards"] == 8
    assert seen["start"]["count"] == "8 of 30 questions shown"
    assert seen["start"]["methods"] == ["npo", "grun-npo", "guard"]
    assert seen["leaked"] == seen["leaked"] | {"cards": 1, "methods": ["npo"], "leaked": 1}
    assert seen["leakedGuard"]["cards"] == 0
    assert seen["leakedGuard"]["none"] == 1
    assert seen["guard"] == seen["guard"] | {"cards": 8, "methods": ["guard"], "leaked": 0}
    assert seen["search"]["cards"] == 1
    assert seen["nothing"]["none"] == 1
    assert seen["title"] == f"run {hostile} · world:forget05"  # not "owned"
    assert seen["overflow"] <= 0  # a telephone need not scroll sideways


def test_the_policy_lets_our_own_script_run(report, chromium, tmp_path):
    page = report.save(tmp_path)
    dom = _run(chromium, tmp_path / "profile", "--dump-dom", page.as_uri())
    assert "8 of 30 questions shown" in dom


def test_the_page_can_be_photographed(report, chromium, tmp_path):
    page = report.save(tmp_path)
    picture = tmp_path / "page.png"
    _run(chromium, tmp_path / "profile", "--window-size=1280,2000", f"--screenshot={picture}", page.as_uri())
    import matplotlib.image as image

    pixels = image.imread(picture)
    assert pixels.shape[:2] == (2000, 1280)
    assert len({tuple(pixel) for pixel in pixels[::20, ::20, :3].reshape(-1, 3).tolist()}) > 20
