"""A real browser for tests of pages: headless Chromium, driven by Selenium. Where there is none, tests skip."""

from __future__ import annotations

import base64
import io
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--window-size=1300,1000",
)
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_PATIENCE_S = 20


class Browser:
    """One window; everything that happens in it happens to ``driver``."""

    def __init__(self, profile: Path) -> None:
        webdriver = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed")
        browser = next(filter(None, map(shutil.which, _NAMES)), None)
        driver = shutil.which("chromedriver")
        if browser is None or driver is None:
            pytest.skip("no Chromium with chromedriver on this machine")
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))

    def close(self) -> None:
        self.driver.quit()

    def open(self, path: Path) -> None:
        """Load a page and wait until its script is done and the first video has a picture."""
        self.driver.get(path.absolute().as_uri())
        self.wait(lambda: self.js("return document.readyState") == "complete")
        if self.js("return Boolean(document.getElementById('data'))"):
            self.wait(lambda: self.js("return document.documentElement.dataset.ready") == "yes")

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        return " ".join(self.js("return document.querySelector(arguments[0]).textContent", selector).split())

    def count(self, selector: str) -> int:
        return self.js("return document.querySelectorAll(arguments[0]).length", selector)

    def click(self, selector: str, *, x: float = 0.5) -> None:
        """Click an element in the middle, or at the share ``x`` of its width."""
        self._move_to(selector, x).click().perform()

    def point(self, selector: str, *, x: float = 0.5) -> None:
        """Move the pointer there without a click."""
        self._move_to(selector, x).perform()

    def _move_to(self, selector: str, x: float) -> Any:
        from selenium.webdriver.common.action_chains import ActionChains

        element = self.driver.find_element("css selector", selector)
        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        return ActionChains(self.driver).move_to_element_with_offset(
            element, round((x - 0.5) * element.size["width"]), 0
        )

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def screenshot(self, selector: str) -> NDArray[np.uint8]:
        """(H, W, 3) what an element looks like."""
        script = """
            const element = document.querySelector(arguments[0]);
            element.scrollIntoView();
            const box = element.getBoundingClientRect();
            return { x: box.x + scrollX, y: box.y + scrollY, width: box.width, height: box.height, scale: 1 };
        """
        data = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": self.js(script, selector)})["data"]
        return np.array(PIL.Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))

    def emulate(self, *, scheme: str = "light", width: int = 1300, height: int = 1000) -> None:
        """Prefer a colour scheme, on a screen of a size."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def wait(self, condition: Callable[[], Any]) -> None:
        """Until ``condition`` holds; fails if it does not within a while."""
        end = time.monotonic() + _PATIENCE_S
        while not condition():
            assert time.monotonic() < end, "waited too long"
            time.sleep(0.02)

    def complaints(self) -> list[str]:
        """What the browser wrote to its console since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]
