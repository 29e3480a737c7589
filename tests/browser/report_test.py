#!/usr/bin/env python3
"""The page of `mcit report` in headless Chromium: wide and narrow, light and dark, by mouse, by keyboard, and without scripts.

    report_test.py path/to/mcit [--shots DIR]     # DIR: screenshots to look at
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import python_env
import sample_runs

SECTIONS = ["scores", "matrices", "metrics", "curves", "drift", "costs", "routing", "gallery", "provenance"]
CHARTS = 1 + len(sample_runs.TASKS)  # the mean, and one a task
CONTRAST = """(selector) => {  // WCAG 2, relative luminance
  const rgb = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = (c) => c.map((v) => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
      .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ink = light(rgb(getComputedStyle(document.querySelector(selector)).color));
  const paper = light(rgb(getComputedStyle(document.body).backgroundColor));
  return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
}"""


def chromium() -> str:
    for name in (os.environ.get("MCIT_CHROMIUM"), "chromium", "chromium-browser", "google-chrome"):
        if name and shutil.which(name):
            return shutil.which(name)
    python_env.skip("there is no Chromium; ./dev setup --tests installs it, MCIT_CHROMIUM names another one")


class Look:
    """Opens the page in one way and collects what must not happen."""

    def __init__(self, browser, page_file: Path, shots: Path | None) -> None:
        self.browser, self.file, self.shots = browser, page_file, shots

    @contextmanager
    def page(self, name: str, width: int = 1280, height: int = 900, scheme: str = "light", scripts: bool = True,
             expect: str = ""):
        context = self.browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme,
                                           java_script_enabled=scripts, reduced_motion="reduce")
        page, faults = context.new_page(), []
        page.on("console", lambda m: faults.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: faults.append(f"script: {e}"))
        page.on("dialog", lambda d: (faults.append("dialog"), d.dismiss()))
        page.on("request", lambda r: faults.append(f"request: {r.url}") if not r.url.startswith(("file:", "data:")) else None)
        page.goto(self.file.as_uri())
        if scripts:
            page.wait_for_selector(".u-over")
        if self.shots:
            page.screenshot(path=self.shots / f"{name}.png", full_page=True)
        yield page
        assert all(expect and expect in fault for fault in faults), f"{name}: {faults}"
        context.close()


def check_looks(look: Look) -> None:
    papers = {}
    for width in (1280, 390):
        for scheme in ("light", "dark"):
            name = f"{scheme}-{width}"
            with look.page(name, width, scheme=scheme) as page:
                assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name}: wider than the window"
                papers[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
                for selector, least in (("body", 7.0), (".sub", 4.5), ("a", 4.5)):
                    contrast = page.evaluate(CONTRAST, selector)
                    assert contrast >= least, f"{name}: contrast of {selector} is {contrast:.2f}"
                assert page.locator(".plot canvas").count() == CHARTS, name
                assert page.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth > 0)"), name
                assert page.evaluate("window.hurt === undefined"), "a text of the run became a script"
    assert papers["light"] != papers["dark"], "there is no dark mode"


def check_content(look: Look) -> None:
    with look.page("content") as page:
        for section in SECTIONS:
            assert page.locator(f"#s1-{section}").count() == 1, section
            assert page.locator(f"nav a[href='#s1-{section}']").count() == 1, section
        assert page.locator("h1").inner_text() == "3 strategies on sample"
        assert page.locator(".card").count() == 24
        size = page.evaluate("(() => { const i = document.images[0]; return [i.naturalWidth, i.naturalHeight] })()")
        assert size == [224, 112], f"pictures of 640 x 320 are shown as {size}"  # the longer side is 224
        hostile = page.locator(".question", has_text="onerror")
        assert hostile.count() > 0 and sample_runs.EVIL in hostile.first.inner_text()
        assert page.evaluate("document.querySelectorAll('script').length") == 3
        nameless = page.evaluate("""[...document.querySelectorAll('a, button, select, summary, [tabindex="0"]')].filter(
            (e) => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).length""")
        assert nameless == 0, f"{nameless} controls have no name"


def check_policy(look: Look) -> None:
    """A script that got into the page all the same would not run, and nothing would be loaded."""
    with look.page("policy", expect="Content Security Policy") as page:
        page.evaluate("""() => { const s = document.createElement('script'); s.textContent = 'window.hurt = 2';
                                 document.body.append(s); }""")
        assert page.evaluate("window.hurt === undefined"), "the policy lets foreign scripts run"


def check_pointing(look: Look) -> None:
    with look.page("pointing") as page:
        plot = page.locator("#s1-task-0 .u-over")
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
        readout = page.locator("#s1-task-0 .readout")
        assert readout.is_visible() and "plain" in readout.inner_text()
        button = page.locator("ul.series button", has_text="plain")
        button.click()
        assert button.get_attribute("aria-pressed") == "false"
        page.mouse.move(box["x"] + box["width"] / 2 + 3, box["y"] + 22)
        plot.hover()
        assert "plain" not in readout.inner_text() and "steady" in readout.inner_text()

        table = page.locator("#s1-scores table").first
        first = lambda: [t.split("±")[0].strip() for t in table.locator("tbody tr td:nth-child(3)").all_inner_texts()]
        head = table.locator("thead th:nth-child(3)")
        head.locator("button.sort").click()
        down = [float(v) for v in first() if v]
        assert head.get_attribute("aria-sort") == "descending" and down == sorted(down, reverse=True), down
        head.locator("button.sort").click()
        assert [float(v) for v in first() if v] == sorted(down), "ascending"

        page.locator(".filters select").first.select_option("shape")
        shown = page.locator(".card:not([hidden])")
        assert 0 < shown.count() < 24 and all("shape" in t for t in shown.locator(".over").all_inner_texts())


def check_keyboard(look: Look) -> None:
    with look.page("keyboard") as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        word = page.locator("#s1-scores .def").first
        word.focus()
        tip = word.locator(".tip")
        assert tip.is_visible() and "score" in tip.inner_text()
        box = tip.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= 900, "the definition lies outside of the window"
        page.keyboard.press("Escape")
        assert not tip.is_visible()
        plot = page.locator("#s1-task-1 .plot")
        plot.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        readout = plot.locator(".readout")
        assert readout.is_visible() and readout.locator("b").inner_text() in sample_runs.TASKS
        assert "routed" in page.locator("[aria-live]").inner_text()
        page.keyboard.press("Escape")
        assert not readout.is_visible()
        summary = page.locator("#s1-metrics summary")
        summary.focus()
        page.keyboard.press("Enter")
        assert page.locator("#s1-m-acc").is_visible()


def check_without_scripts(look: Look) -> None:
    with look.page("no-scripts", scripts=False) as page:
        for section in SECTIONS:
            assert page.locator(f"#s1-{section}").is_visible(), section
        assert page.locator(".plot > svg").count() == CHARTS + 3  # and the three of costs
        assert page.locator(".plot > svg").first.bounding_box()["width"] > 300
        assert page.locator(".card").count() == 24 and page.locator(".card").last.is_visible()
        word = page.locator("#s1-scores .def").first
        word.focus()
        assert word.locator(".tip").is_visible(), "definitions need no script"
        assert page.locator("button").count() == 0, "a control that does nothing without scripts"


def main(mcit: str, shots: Path | None) -> None:
    from playwright.sync_api import sync_playwright

    executable = chromium()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        work = Path(folder)
        runs = sample_runs.all_runs(work)
        made = subprocess.run([mcit, "report", *map(str, runs), "-o", str(work / "page.html"), "--tables", str(work / "tables")],
                              capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
        assert "warning" not in made.stderr, made.stderr
        assert {"comparison.md", "comparison.csv", "comparison.json"} <= {f.name for f in (work / "tables").iterdir()}
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox refuses root; the page is ours
        browser = driver.chromium.launch(executable_path=executable, args=arguments)
        look = Look(browser, work / "page.html", shots)
        for check in (check_looks, check_content, check_policy, check_pointing, check_keyboard, check_without_scripts):
            check(look)
            print(f"{check.__name__}: all well")
        browser.close()


if __name__ == "__main__":
    python_env.enter()
    folder = Path(sys.argv[sys.argv.index("--shots") + 1]) if "--shots" in sys.argv else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    main(sys.argv[1], folder)
