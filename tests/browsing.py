"""Chromium without a screen, and what tests of pages ask of it."""

import base64
import json
import sys
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

AXE = Path(sys.prefix) / "package" / "axe.min.js"
PICTURES = Path("runs/pages")
SIZES = {1440: 900, 390: 844}
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
OVERLAPS = """
const found = [], boxes = [];
const UNSEEN = '.skip, .hidden, script, style, option, details:not([open]) > :not(summary)';
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  const parent = node.parentElement;
  if (!node.data.trim() || parent.closest(UNSEEN)) continue;
  const scroller = parent.closest('.scroll');
  const range = document.createRange();
  range.selectNodeContents(node);
  for (const box of range.getClientRects())
    if (box.width > 1 && box.height > 1)
      boxes.push({box, node, text: node.data.trim().slice(0, 40), scroller});
}
for (let i = 0; i < boxes.length; i++) {
  const a = boxes[i];
  if (!a.scroller && a.box.right > document.documentElement.clientWidth + 1) found.push('outside: ' + a.text);
  for (let j = i + 1; j < boxes.length; j++) {
    const b = boxes[j];
    if (a.node === b.node || a.scroller !== b.scroller) continue;
    const wide = Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left);
    const high = Math.min(a.box.bottom, b.box.bottom) - Math.max(a.box.top, b.box.top);
    if (wide > 2 && high > 6) found.push(a.text + ' | ' + b.text);
  }
}
if (document.documentElement.scrollWidth > document.documentElement.clientWidth + 1)
  found.push('wider than the window: ' + document.documentElement.scrollWidth);
return found;
"""


class Browser:
    """One person's browser. `scripts`: whether pages may run JavaScript."""

    def __init__(self, profile, scripts=True):
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        if not scripts:
            options.add_experimental_option(
                "prefs", {"profile.managed_default_content_settings.javascript": 2}
            )
        self.driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
        self.size(1440)

    def quit(self):
        """Close it, once."""
        if self.driver.service.process.poll() is None:
            self.driver.quit()

    def size(self, width, dark=False):
        """The window's width in pixels, as on a screen or a phone, and the colours that the person wants."""
        metrics = {
            "width": width,
            "height": SIZES[width],
            "deviceScaleFactor": 1,
            "mobile": width < 600,
        }
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        wanted = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})

    def open(self, url):
        self.driver.get(url)
        return self

    def login(self, site, name, path="/review"):
        """As a person does it, starting from nothing."""
        self.driver.delete_all_cookies()
        self.open(site + path)
        self.driver.delete_all_cookies()
        self.open(site + path)
        self.write("key", f"gr-{name}")
        self.press("Log in")
        return self

    def write(self, name, text):
        """In place of what is in a field."""
        field = self.driver.find_element(By.NAME, name)
        field.clear()
        field.send_keys(text)

    def press(self, text):
        """A button or link, and wait for the page that follows."""
        found = self.driver.find_element(
            By.XPATH, f"//*[self::button or self::a][contains(normalize-space(.), {json.dumps(text)})]"
        )
        self.follow(found.click)

    def follow(self, act):
        """Do something that loads another page."""
        before = self.driver.find_element(By.TAG_NAME, "html").id
        act()
        wait = WebDriverWait(self.driver, 10)
        wait.until(lambda driver: driver.find_element(By.TAG_NAME, "html").id != before)
        wait.until(lambda driver: driver.find_elements(By.ID, "content"))

    def tab_to(self, text, limit=60):
        """Press the tab key until what has the focus says this."""
        for _ in range(limit):
            webdriver.ActionChains(self.driver).send_keys(Keys.TAB).perform()
            focused = self.driver.switch_to.active_element
            if text in focused.text or text == focused.get_attribute("name"):
                return focused
        raise AssertionError(f"`{text}` cannot be reached with the tab key")

    @property
    def text(self):
        return self.driver.find_element(By.TAG_NAME, "body").text

    @property
    def path(self):
        return "/" + self.driver.current_url.partition("://")[2].partition("/")[2]

    def picture(self, name):
        """The whole page, in runs/pages."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        wanted = {"captureBeyondViewport": True, "format": "png"}
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", wanted)
        (PICTURES / f"{name}.png").write_bytes(base64.b64decode(taken["data"]))

    def overlaps(self):
        """Texts that lie on one another or outside the window."""
        return self.driver.execute_script(OVERLAPS)

    def findings(self):
        """What axe-core finds serious or critical."""
        self.driver.execute_script(AXE.read_text())
        found = self.driver.execute_async_script(
            "const done = arguments[0], fail = e => done([{impact: 'critical', id: String(e)}]);"
            "axe.run().then(found => done(found.violations), fail);"
        )
        return [
            (one["id"], [node["html"][:200] for node in one.get("nodes", ())])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]

    def complaints(self):
        """Errors in the browser's console: what the content policy blocked, scripts that failed."""
        return [one["message"] for one in self.driver.get_log("browser") if one["level"] == "SEVERE"]

    def look_at(self, name):
        """Pictures of the page on screen and phone, light and dark; returns all that is wrong with it."""
        wrong = []
        for width in SIZES:
            for dark in (False, True):
                self.size(width, dark)
                place = f"{name}-{width}-{'dark' if dark else 'light'}"
                self.picture(place)
                wrong += [(place, one) for one in (*self.overlaps(), *self.findings())]
        self.size(1440)
        return wrong
