"""The report in a browser: drawn without errors, on a phone too, in light and in dark."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from benchmark.report import REPORT
from tests.benchmark.test_report import SPEEDS, ladder, written

pytestmark = pytest.mark.long
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--allow-file-access-from-files", "--enable-logging=stderr"),
    *("--virtual-time-budget=5000", "--dump-dom"),
)
DARK = "--blink-settings=preferredColorScheme=0"
TIP = """
  const spot = inside.querySelector("figure .mark"), tip = inside.getElementById("tip");
  const place = spot.getBoundingClientRect(), PointerEvent = inside.defaultView.PointerEvent;
  const does = (target, type, pointerType) => (target.dispatchEvent(new PointerEvent(type, {
    bubbles: type !== "pointerleave", pointerType,
    clientX: place.x + place.width / 2, clientY: place.y + place.height / 2,
  })), !tip.hidden);
"""
ASK = """<!doctype html><iframe id="page" src="{page}" width="{width}" height="900"></iframe>
<pre id="answer"></pre><script>addEventListener("load", () => {{
  const inside = document.getElementById("page").contentDocument, root = inside.documentElement;
  const svg = [...inside.querySelectorAll("figure svg")], figure = svg[0].closest("figure");
  {tip}
  document.getElementById("answer").textContent = JSON.stringify({{
    width: root.clientWidth, needed: root.scrollWidth, drawn: root.dataset.drawn,
    sections: [...inside.querySelectorAll("section[data-n]")].filter((one) => !one.hidden).length,
    fonts: svg.map((one) => one.getBoundingClientRect().width / one.viewBox.baseVal.width * 12),
    methods: inside.querySelectorAll(".legend button").length,
    tapped: [does(figure, "pointerdown", "touch"), does(figure, "pointerleave", "touch"),
             does(inside.body, "pointerdown", "touch")],
    pointed: [does(figure, "pointermove", "mouse"), does(figure, "pointerleave", "mouse")],
    colours: ["body", ".soft", "dt", ".advice", "svg text", "select"].map((one) => {{
      const style = getComputedStyle(inside.querySelector(one));
      return [one === "svg text" ? style.fill : style.color,
              getComputedStyle(inside.body).backgroundColor];
    }}),
  }});
}});</script>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return written(tmp_path_factory.mktemp("bench"), ladder()).parent


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_draws_it_without_errors_and_without_overflow(folder, tmp_path, width, scheme):
    ask = tmp_path / "ask.html"
    ask.write_text(ASK.format(page=(folder / REPORT).as_uri(), width=width, tip=TIP))
    dark = [DARK] if scheme == "dark" else []
    ran = subprocess.run(
        [CHROMIUM, *QUIET, *dark, f"--user-data-dir={tmp_path / 'profile'}", ask.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert not [line for line in ran.stderr.splitlines() if "CONSOLE" in line]
    answer = json.loads(unescape(re.search(r'id="answer">(.*?)</pre>', ran.stdout, re.S)[1]))
    assert answer["needed"] <= answer["width"] <= width
    shown = 5 * len(SPEEDS) * 4
    assert int(answer["drawn"]) > shown
    assert (answer["sections"], answer["methods"]) == (1, len(SPEEDS))
    assert min(answer["fonts"]) >= 11
    assert answer["tapped"] == [True, True, False]
    assert answer["pointed"] == [True, False]
    for ink, paper in answer["colours"]:
        assert (brightness(paper) < 0.5) is (scheme == "dark")
        assert contrast(ink, paper) >= 4.5


def brightness(colour):
    """Relative luminance of `rgb(r, g, b)` as WCAG has it."""
    shares = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (
        one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in shares
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    dark, bright = sorted((brightness(one), brightness(other)))
    return (bright + 0.05) / (dark + 0.05)
