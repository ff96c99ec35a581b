"""Make the pictures of docs/ from the page of `cmt serve`: python examples/screenshots.py [--fake].

They show examples/documents and the default model; with --fake the test's stand-in for a model, for
a look at the page alone. Needs chromium and its chromedriver, and the extras serve and dev.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import uvicorn
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import cmt_sdk
from cmt_adapters.server.serve import app
from cmt_sdk.testing.fakes import open_fake

ROOT = Path(__file__).parents[1]
QUESTION = "What is the highest point of Kenya?"
PATIENCE = 120  # seconds for an answer: on a busy machine the first one takes its time
WIDE, NARROW = (1400, 900, 1), (360, 740, 1.5)  # pixels, and device pixels to each


@contextmanager
def served(memory: cmt_sdk.Memory) -> Iterator[str]:
    """The address of a server over the memory."""
    server = uvicorn.Server(uvicorn.Config(app(memory), port=0, log_config=None))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@contextmanager
def browser(profile: str) -> Iterator[webdriver.Chrome]:
    """A browser without a window, in light colours."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "google-chrome"
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "no-first-run",
        "disable-background-networking",
        "hide-scrollbars",
    ):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={profile}")
    opened = webdriver.Chrome(
        options, webdriver.ChromeService(shutil.which("chromedriver") or "chromedriver")
    )
    opened.implicitly_wait(PATIENCE)
    light = {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", light)
    try:
        yield opened
    finally:
        opened.quit()


def size(chrome: webdriver.Chrome, width: int, height: int, scale: float) -> None:
    """Give the page a screen."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def shoot(chrome: webdriver.Chrome, name: str) -> None:
    """Write one picture."""
    time.sleep(0.5)  # for what fades in
    file = ROOT / "docs" / f"page-{name}.png"
    chrome.save_screenshot(str(file))
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size // 1000} kB")


def tour(chrome: webdriver.Chrome, address: str) -> None:
    """Ask, open the first source, walk on the map."""
    size(chrome, *WIDE)
    chrome.get(address)
    chrome.find_element(By.ID, "question").send_keys(QUESTION + Keys.ENTER)
    source = chrome.find_element(By.CSS_SELECTOR, ".sources .source")
    shoot(chrome, "wide")
    size(chrome, *NARROW)
    source.click()
    chrome.find_element(By.CSS_SELECTOR, "#document mark")
    shoot(chrome, "narrow")
    size(chrome, *WIDE)
    chrome.get(f"{address}?map#map")
    point = chrome.find_element(
        By.XPATH, "//ul[@id='map-list']//button[contains(., 'Kenya lies in')]"
    )
    chrome.execute_script("arguments[0].focus()", point)
    chrome.find_element(By.CSS_SELECTOR, "#map-card h3")
    shoot(chrome, "map")


def main() -> None:
    """Fill a memory, serve it, take the pictures."""
    parser = argparse.ArgumentParser(
        description="Make the pictures of docs/ from the page of cmt serve."
    )
    parser.add_argument("--fake", action="store_true", help="without a language model")
    opened = open_fake if parser.parse_args().fake else cmt_sdk.open
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        closing(opened(Path(folder) / "countries")) as memory,
    ):
        for file in sorted((ROOT / "examples" / "documents").glob("*.md")):
            memory.add(cmt_sdk.read_document(file), source=file.name)
        memory.model.ask(QUESTION)  # loads what a first answer loads
        with served(memory) as address, browser(f"{folder}/profile") as chrome:
            tour(chrome, address)


if __name__ == "__main__":
    main()
