"""A browser without a window, and the page of `cmt serve` as its reader handles it. Knows no
test.
"""

import shutil
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,900",
]
PATIENCE = 20  # seconds for anything to appear: a busy machine is no failure
FOUND = (
    "return [...document.querySelectorAll(arguments[0])].find((e) =>"
    " e.checkVisibility({visibilityProperty: true}) && (e.innerText ?? '').includes(arguments[1]))"
)


def launch(profile: Path) -> webdriver.Chrome:
    """A browser that keeps what it asked for and what it complained of."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER or "chromium"
    for flag in [*FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(DRIVER or "chromedriver"))


class Page:
    """The page as its reader handles it."""

    def __init__(self, chrome, served):
        self.chrome = chrome
        self.served = served
        self.memory = served.memory

    def open(self, view="ask"):
        """Load the page and wait for a view's heading."""
        # loaded anew, whatever was open before
        self.chrome.get(f"{self.served.url}/?{time.monotonic_ns()}#{view}")
        return self.find(f"#view-{view} h1")

    def wait(self, condition):
        """What the condition gives once it is true."""
        return WebDriverWait(self.chrome, PATIENCE, 0.03).until(condition)

    def find(self, css, text=""):
        """The first element that can be seen and holds the text, once there is one."""
        return self.wait(lambda _: self.js(FOUND, css, text))

    def all(self, css):
        """All elements there are now, seen or not."""
        return self.chrome.find_elements(By.CSS_SELECTOR, css)

    def texts(self, css):
        """The words of all elements there are now."""
        return self.js(
            "return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText)", css
        )

    def press(self, css, text=""):
        """Click the first such element."""
        self.find(css, text).click()

    def type(self, css, words):
        """Fill a field with other words."""
        field = self.find(css)
        field.clear()
        field.send_keys(words)

    def gone(self, css):
        """Wait until no such element can be seen."""
        self.wait(lambda _: not self.js(FOUND, css, ""))

    def js(self, script, *arguments):
        """What a script returns."""
        return self.chrome.execute_script(script, *arguments)

    @property
    def focused(self):
        """The element that the keyboard speaks to."""
        return self.chrome.switch_to.active_element

    def keys(self, *keys):
        """Press keys."""
        ActionChains(self.chrome).send_keys(*keys).perform()

    def ask(self, question):
        """Ask on a page loaded anew, and wait for the whole answer."""
        self.open()
        self.type("#question", question + Keys.ENTER)
        self.find(".answer .costs, .answer .notice")
