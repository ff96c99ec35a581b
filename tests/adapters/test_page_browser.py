"""The page of `cmt serve` in a real browser, over a real server on loopback and a memory with a
fake language model.

Every test also sees that no request left the server's origin and that the browser had nothing to
complain about.
"""

import json
import os
import re
import socket
from contextlib import ExitStack

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.adapters.browser import BROWSER, DRIVER, Page, launch
from tests.adapters.serving import running

pytestmark = pytest.mark.enable_socket

MUSEUM = "The museum opened in Porto. The museum moved to Lisbon in 2019. Entry is free on Sundays."
HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script> Porto &"
    " </textarea> tea"
)


@pytest.fixture(scope="module")
def chrome(tmp_path_factory):
    """One browser for all tests; each server has a port of its own, and so an origin of its own."""
    if not os.environ.get("CI") and not (BROWSER and DRIVER):
        pytest.skip(
            "no chromium or no chromedriver on this machine (Debian: apt-get install chromium"
            " chromium-driver)"
        )
    opened = launch(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.quit()


@pytest.fixture
def browse(chrome, tmp_path):
    """A function that serves an empty memory and gives its page; in the end it looks at what the
    browser has recorded.
    """
    pages = []
    with ExitStack() as servers:

        def opened(**options):
            chrome.get("about:blank")  # ends what an earlier page still does
            chrome.get_log("performance"), chrome.get_log("browser")
            pages.append(
                Page(chrome, servers.enter_context(running(tmp_path / "notes", **options)))
            )
            return pages[-1]

        yield opened
        messages = [
            json.loads(entry["message"])["message"] for entry in chrome.get_log("performance")
        ]
        complaints = [entry["message"] for entry in chrome.get_log("browser")]
    asked = [
        m["params"]["request"]["url"]
        for m in messages
        if m["method"] == "Network.requestWillBeSent"
    ]
    assert asked
    assert {
        url for url in asked if not url.startswith(tuple(f"{page.served.url}/" for page in pages))
    } == set()
    assert [c for c in complaints if "Failed to load resource" not in c] == []


@pytest.fixture
def page(browse):
    """The page over a memory that has no token."""
    return browse()


def test_a_file_is_added_asked_about_and_its_source_is_marked(page, tmp_path):
    """From the file chooser to the answer, which comes in pieces, to the span it was read from."""
    tea = "Ann likes green tea. " * 20  # a short document would be one passage
    (tmp_path / "trip.md").write_text(
        f"\N{PERFORMING ARTS} Notes.\n\n# Museum\n\n{MUSEUM}\n\n# Tea\n\n{tea}"
    )
    page.open()
    page.find("#ask-result", "This memory is empty")
    page.press("#ask-result a")
    page.find("#documents-title")
    page.all("#files")[0].send_keys(str(tmp_path / "trip.md"))
    assert "trip.md" in page.find("#uploads .good", "remembered").text
    page.find("#listing .source", "trip.md")
    page.press("nav a", "Ask")
    page.type("#question", "Which city has the museum moved to?" + Keys.ENTER)
    page.find(".costs")
    assert page.find(".answer .words").text == "The museum moved to Lisbon in 2019."
    assert "Confidence 1.00" in page.find(".verdict").text
    assert page.find(".sources .excerpt mark").text == "The museum moved to Lisbon in 2019."
    page.press(".sources .source", "Lisbon")
    assert page.find("#document mark").text == MUSEUM
    assert page.find("#document mark strong").text == "The museum moved to Lisbon in 2019."


def test_an_answer_comes_word_by_word_and_can_be_stopped(page):
    """What is there so far can be read; a stopped answer keeps it, and the next question is
    answered as ever.
    """
    page.memory.add(MUSEUM)
    page.open()
    page.served.reader.hold()
    page.type("#question", "Which city has the museum moved to?" + Keys.ENTER)
    page.served.reader.words.release(2)
    page.find(".answer .words", "The museum")
    page.press("#ask-stop")
    assert page.find(".answer", "Stopped.").text == "The museum \nStopped."
    page.served.reader.go()
    page.find("#question").send_keys(Keys.ENTER)
    page.find(".costs")
    assert page.find(".answer .words").text == "The museum moved to Lisbon in 2019."


def test_what_the_memory_does_not_tell_is_said_plainly(page):
    """No confidence, no invented source of the answer's words; and a remedy."""
    page.memory.add(MUSEUM)
    page.ask("Quarks?")
    assert "The memory does not tell. Add a document that does" in page.find(".verdict").text


def test_each_file_has_its_progress_and_a_refusal_its_reason(page, tmp_path):
    """What cannot be read does not stop what comes after it; all goes into the scope that is
    named.
    """
    (tmp_path / "broken.pdf").write_bytes(b"no pdf at all")
    (tmp_path / "tea.txt").write_text("Ann likes green tea.")
    page.open("documents")
    page.type("#add-scope", "user/ann")
    page.all("#files")[0].send_keys(f"{tmp_path / 'broken.pdf'}\n{tmp_path / 'tea.txt'}")
    page.find("#uploads .good", "tea.txt")
    assert "broken.pdf" in page.find("#uploads .bad .state", "refused:").text
    assert [(d.source, d.scope) for d in page.memory.documents()] == [("tea.txt", "user/ann")]


def test_a_file_can_be_dropped_on_any_view(page):
    """The page goes to the documents and adds it; a drop outside the box does not replace the page
    by the file.
    """
    page.open("map")
    page.js(
        "const data = new DataTransfer(); data.items.add(new File(['The ferry leaves at ten.'],"
        " 'ferry.txt'));for (const kind of ['dragover', 'drop']) document.body.dispatchEvent(new"
        " DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true}))"
    )
    page.find("#uploads .good", "ferry.txt")
    assert page.memory.count(source="ferry.txt") == 1


def test_a_text_is_typed_found_again_and_edited(page):
    """A new text is a new version; source, scope and typed metadata change with it."""
    page.open("documents")
    page.press("#typing summary")
    page.type("#text-form [name=text]", MUSEUM)
    page.type("#text-form [name=source]", "trip.md")
    page.press("#text-form button")
    page.press("#listing .source", "trip.md")
    page.press(".drawer button", "Edit")
    page.type(".edit [name=text]", "The museum moved to Faro.")
    page.type(".edit [name=scope]", "user/ann")
    page.type(".edit [name=metadata]", 'year: 2020\nroom: "12"\nopen')
    page.press(".edit .main")
    assert (
        "“open” is no metadata: write a name, a colon and a value"
        in page.find(".edit .notice").text
    )
    page.type(".edit [name=metadata]", 'year: 2020\nroom: "12"\nopen: true')
    page.press(".edit .main")
    page.find(".notice.good", "Saved")
    assert page.find(".drawer .text").text == "The museum moved to Faro."
    (stored,) = page.memory.documents()
    assert (stored.version, stored.source, stored.scope) == (2, "trip.md", "user/ann")
    assert stored.metadata == {"year": 2020, "room": "12", "open": True}


def test_metadata_comes_back_as_it_was(page):
    """Whatever names and values there are, their lines mean the same again."""
    page.open()
    fields = {
        "a": "x: y",
        "b:c": "2020",
        "d": 2020.5,
        "e": None,
        "f": "two\nlines",
        "g": "",
        '"h"': '"i"',
        "j": " k ",
        "l": "true",
    }
    again = page.chrome.execute_async_script(
        "const [fields, done] = arguments; import('/metadata.js').then((m) =>"
        " done(m.parsed(m.lines(fields))))",
        fields,
    )
    assert again == fields


def test_forgetting_asks_first_and_shows_the_receipt(page):
    """One click changes nothing; the second erases, and what the scan of the files found is
    told.
    """
    page.memory.add(MUSEUM, source="trip.md")
    page.open("documents")
    page.press("#listing .source", "trip.md")
    page.press(".drawer .danger", "Forget")
    assert page.focused.text == "Keep it"
    page.keys(Keys.ENTER)
    page.find(".drawer .text")
    assert page.memory.count() == 1
    page.press(".drawer .danger", "Forget")
    page.press(".notice .danger", "Forget for good")
    assert page.find(".notice.good").text == "Gone from every file"
    assert re.search(r"Passages\n1\n.*Traces found\n0\n", page.find(".receipt").text, re.DOTALL)
    assert page.memory.count() == 0
    page.press(".drawer .main", "Done")
    page.find("#listing .empty", "No documents yet")


def test_the_map_shows_every_passage_and_its_neighbours(page):
    """A dot a passage; the one under the pointer is told with its neighbours, a click opens it; the
    plane zooms and moves.
    """
    page.memory.add_many(
        [
            f"The museum shows tea from {place}."
            for place in ("Porto", "Faro", "Nepal", "Kenya", "Japan", "Chile")
        ]
    )
    page.open("map")
    page.find("#plane circle")
    assert len(page.all("#plane circle")) == len(page.all("#map-list button")) == 6
    dots = (
        "return [...document.querySelectorAll('#plane circle')].map((dot) =>"
        " dot.getAttribute('cx')).join()"
    )
    before = page.wait(lambda _: page.js(dots).strip(","))
    page.press("#zoom-in")
    zoomed = page.wait(lambda _: (now := page.js(dots)) != before and now)
    page.js("document.getElementById('plane').focus()")
    page.keys(Keys.ARROW_RIGHT)
    page.wait(lambda _: page.js(dots) not in (before, zoomed))
    page.keys("0")
    page.wait(lambda _: page.js(dots) == before)
    dot = page.all("#plane circle")[2]
    ActionChains(page.chrome).move_to_element(dot).perform()
    page.wait(lambda _: len(page.all("#plane line")) == 5)
    shown = page.find("#map-card .words", "shows tea from").text
    page.all("#plane .active")[0].click()
    assert page.find("#document mark").text == shown


def test_the_map_is_all_there_for_the_keyboard(page):
    """The list is one stop of the tab key; arrows walk it and move the active dot with them; enter
    opens.
    """
    page.memory.add_many([f"The museum number {n}." for n in range(3)])
    page.open("map")
    page.find("#map-list button")
    page.js("document.querySelector('#map-list button').focus()")
    page.keys(Keys.END, Keys.ARROW_UP)
    assert page.focused.text.startswith("The museum number 1.")
    assert page.all("#plane .active")[0].get_attribute("data-id") == page.focused.get_attribute(
        "data-id"
    )
    page.keys(Keys.ENTER)
    assert page.find("#document mark").text == "The museum number 1."
    page.keys(Keys.ESCAPE)
    page.gone("#document")
    assert page.focused.text.startswith("The museum number 1.")


def test_memory_and_text_answer_side_by_side(page):
    """The same question to both, with the tokens and the time of each."""
    page.memory.add(MUSEUM, source="trip.md")
    page.open("compare")
    page.type("#compare-question", "Which city has the museum moved to?" + Keys.ENTER)
    page.find("caption", "What it cost")
    assert page.texts(".pair .card h2") == ["From memory", "From text"]
    assert page.texts(".pair .words") == ["The museum moved to Lisbon in 2019."] * 2
    rows = {
        name: page.texts(f"tbody tr:nth-child({n}) td")
        for n, name in enumerate(page.texts("tbody th"), 1)
    }
    below_its_title = len(MUSEUM.split()) + 2  # "trip", and the end of that line
    assert rows["Tokens read from memory"] == [str(below_its_title), "0"]
    assert all(re.fullmatch(r"[\d.]+ m?s", time.strip()) for time in rows["Altogether"])


def test_everything_is_within_reach_of_the_keyboard(page):
    """From the first tab to a source and back, without a pointer."""
    page.memory.add(MUSEUM, source="trip.md")
    page.open()
    page.keys(Keys.TAB)
    assert page.focused.text == "Skip to the content"
    page.keys(Keys.ENTER, Keys.TAB)
    assert page.focused.get_attribute("id") == "question"
    page.keys("Which city has the museum moved to?", Keys.ENTER)
    page.find(".costs")
    page.keys(Keys.TAB, Keys.TAB, Keys.TAB)
    source = page.focused
    assert "trip.md" in source.text
    page.keys(Keys.ENTER)
    page.find("#document mark")
    page.keys(Keys.ESCAPE)
    page.gone("#document")
    assert page.focused == source


def test_hostile_text_stays_text(page):
    """In lists, answers, documents, forms, on the map: no element comes of it and nothing of it
    runs.
    """
    page.memory.add(HOSTILE, source="<img src=y>", scope="<b>x<", metadata={"<i>": "<img src=z>"})
    page.ask("Which tea?")
    assert page.find(".answer .words").text == HOSTILE
    page.press(".sources .source", "<img src=y>")
    assert page.find("#document mark").text == HOSTILE
    assert "<i>\n<img src=z>" in page.find(".facts").text
    page.press(".drawer button", "Edit")
    assert page.find(".edit [name=text]").get_property("value") == HOSTILE
    page.open("map")
    page.find("#map-list button", "<img src=x")
    page.open("documents")
    page.find("#listing .tag", "<b>x<")
    assert len(page.all("img, script, b, i")) == 2  # the icon and the page's own script
    assert page.chrome.title == "Documents – Memory"


def test_documents_are_turned_by_pages_and_narrowed(page):
    """Twenty a page; by a part of the source, by scope, and by words, which show the passage."""
    page.memory.add_many([f"Tea number {n}." for n in range(25)])
    page.memory.add(MUSEUM, source="a/trip.md", scope="user/ann")
    page.open("documents")
    page.wait(lambda _: len(page.all("#listing li")) == 20)
    page.press("#next")
    page.wait(lambda _: len(page.all("#listing li")) == 6)
    assert page.find("#page-number").text == "Page 2"
    page.press("#previous")
    page.wait(lambda _: len(page.all("#listing li")) == 20)
    page.type("#filter-form [name=source]", "trip")
    page.wait(lambda _: page.texts("#listing .name") == ["a/trip.mduser/ann"])
    page.type("#filter-form [name=scope]", "user/bob")
    page.find("#listing .empty", "No document fits")
    page.type("#filter-form [name=scope]", "user/ann")
    page.type("#filter-form [name=text]", "museum")
    page.press("#listing .source", "meaning #1")
    assert page.find("#document mark").text == MUSEUM


def test_a_source_that_has_changed_since_is_told(page):
    """What the answer was read from is shown, and nothing of the new text is marked for it."""
    stored = page.memory.add(MUSEUM, source="trip.md")
    page.ask("Which city has the museum moved to?")
    page.memory.update(stored.id, "The museum is closed.")
    page.press(".sources .source")
    assert (
        "This document has changed since. The passage was:\n" + MUSEUM
        in page.find(".drawer .notice").text
    )
    assert page.all("#document mark") == []
    page.memory.forget(stored.id)
    page.keys(Keys.ESCAPE)
    page.press(".sources .source")
    page.find(".drawer .notice", f"no document has the id '{stored.id}'")


def test_the_token_is_asked_for_once_and_kept_for_the_tab(browse):
    """A wrong one is refused in words; after the right one the page goes on with what it was
    about.
    """
    page = browse(token="right")  # noqa: S106 - it guards nothing
    page.memory.add(MUSEUM, source="trip.md")
    page.open("documents")
    page.type("#token-input", "wrong" + Keys.ENTER)
    page.find("#token-why", "did not take that token")
    page.type("#token-input", "right" + Keys.ENTER)
    page.find("#listing .source", "trip.md")
    page.gone("#token")
    page.open("documents")
    page.find("#listing .source", "trip.md")
    assert page.js("return localStorage.length") == 0


def answers(url):
    """Whether anything listens there."""
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) == 0


def test_a_server_that_is_gone_is_told_with_the_remedy(page):
    """And the question can be put again."""
    page.open()
    page.find("#ask-result .empty")
    page.served.stop()
    page.wait(lambda _: not answers(page.served.url))
    page.type("#question", "Where?" + Keys.ENTER)
    assert "See that `cmt serve` is still running" in page.find(".answer .notice").text
    assert page.find(".answer .notice button").text == "Try again"


def test_what_is_too_large_is_refused_in_words(browse, tmp_path):
    """The limit is the server's."""
    page = browse(max_body=10_000)
    (tmp_path / "long.txt").write_text("tea " * 5_000)
    page.open("documents")
    page.all("#files")[0].send_keys(str(tmp_path / "long.txt"))
    assert "10,000 bytes" in page.find("#uploads .bad").text


def test_a_narrow_screen_has_nothing_to_scroll_sideways(page):
    """No view is wider than 360 pixels, whatever words it holds."""
    page.memory.add(
        MUSEUM + " " + "x" * 300, source="a/" + "long" * 40 + ".md", scope="user/" + "ann" * 30
    )
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": False}
    page.chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        wide = (
            "return Math.max(document.documentElement.scrollWidth,"
            " document.getElementById('document').scrollWidth)"
        )
        page.ask("Which city has the museum moved to?")
        assert page.js(wide) <= 360
        page.press(".sources .source")
        page.find("#document mark")
        assert page.js(wide) <= 360
        for view, ready in (
            ("documents", "#listing .source"),
            ("map", "#map-list button"),
            ("compare", "#compare-result"),
        ):
            page.open(view)
            page.find(ready)
            assert page.js(wide) <= 360
    finally:
        page.chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
