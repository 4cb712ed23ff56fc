"""Headless Chromium for tests of pages, with axe-core's check of accessibility.

`python tests/browser.py` installs axe-core, which comes from npm, into build/; a test that needs it is skipped without.
"""

import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NPM = Path(__file__).parents[1] / "build" / "npm"
AXE = "axe-core@4.14.1"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "force-device-scale-factor=1")
HEIGHT = 900  # of the window, in pixels


def missing() -> str | None:
    """Why no page can be opened here, or None where one can."""
    if importlib.util.find_spec("selenium") is None:
        return "selenium is not installed"
    if _browser() is None:
        return f"none of {', '.join(BROWSERS)} is installed"
    return None if shutil.which("chromedriver") else "chromedriver is not installed"


@contextmanager
def chromium(width: int = 1280, *, dark: bool = False) -> Iterator:
    """A selenium driver of a window `width` pixels wide, with an empty profile; `dark` asks pages for dark colours."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = _browser()
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"user-data-dir={profile}", f"window-size={max(width, 500)},{HEIGHT}"):
            options.add_argument(f"--{flag}")
        driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
        try:
            # a window cannot be narrower than 500 pixels, a telephone's screen can
            screen = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": width < 500}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
            yield driver
        finally:
            driver.quit()


def axe(driver) -> list[str]:
    """What axe-core finds serious or critical on the page, one line a finding; skips the test without axe-core."""
    script = NPM / "node_modules" / "axe-core" / "axe.min.js"
    if not script.is_file():
        pytest.skip("axe-core is not installed; python tests/browser.py installs it")
    driver.execute_script(script.read_text(encoding="utf-8"))
    run = "axe.run().then(arguments[0], problem => arguments[0]({error: String(problem)}))"
    result = driver.execute_async_script(run)
    assert "violations" in result, result
    return [
        f"{rule['id']} ({rule['impact']}): {rule['help']}: {node['html'][:120]}"
        for rule in result["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


def console_errors(driver) -> list[str]:
    """Errors on the page's console since this was last asked, one line an error."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def scrolls_sideways(driver) -> int:
    """By how many pixels the page is wider than its window; 0 where it need not be scrolled sideways."""
    root = "document.documentElement"
    return driver.execute_script(f"return Math.max(0, {root}.scrollWidth - {root}.clientWidth)")


def _browser() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


if __name__ == "__main__":
    NPM.mkdir(parents=True, exist_ok=True)
    subprocess.run(["npm", "install", "--prefix", NPM, "--no-audit", "--no-fund", "--no-save", AXE], check=True)
