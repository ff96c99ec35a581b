"""Kind 11: two machines that exchange archives of one memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cmt_sdk.archive.histories import compare
from cmt_sdk.errors import AlreadyExists, InvalidDocument, InvalidSetting
from cmt_sdk.memory import Memory
from cmt_sdk.testing.fakes import FakeEngine, open_fake
from cmt_sdk.types import Document, Progress
from tests.unit.conftest import Command

FILE = "/home/ann/notes/trip.md"
FIRST = "The ferry to Tarn leaves at eight."
SECOND = "The ferry to Tarn leaves at nine."
THIRD = "The ferry to Tarn leaves at ten."


class Machines:
    """A laptop and a desktop, each with a memory of one note that came from the laptop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self.engine = FakeEngine()
        self.laptop = open_fake(folder / "laptop")
        self.desktop = open_fake(folder / "desktop", self.engine)
        self.laptop.add(FIRST, id="trip", source=FILE)
        self.to_desktop()

    def export(self, memory: Memory) -> Path:
        """An archive of a memory."""
        self._count += 1
        memory.export(self._folder / f"{self._count}.cmt")
        return self._folder / f"{self._count}.cmt"

    def to_desktop(self, **options: Any) -> Progress:
        """The laptop's memory comes to the desktop."""
        return self.desktop.import_archive(self.export(self.laptop), **options)

    def to_laptop(self, **options: Any) -> Progress:
        """The desktop's memory comes to the laptop."""
        return self.laptop.import_archive(self.export(self.desktop), **options)

    def close(self) -> None:
        """Close both."""
        self.laptop.close()
        self.desktop.close()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Machines]:
    """Two machines that hold the same."""
    machines = Machines(tmp_path)
    yield machines
    machines.close()


def held(memory: Memory) -> list[str]:
    """All current texts."""
    return sorted(d.text for d in memory.documents())


def versions(memory: Memory, name: str = "trip") -> list[tuple[int, str]]:
    """The history of a document."""
    return [(d.version, d.text) for d in memory.history(name)]


def found(memory: Memory) -> str:
    """The text that a search finds first."""
    return memory.search("ferry Tarn", 1)[0].passage.text


# -- ahead, behind -------------------------------------------------------------------------------


def test_an_archive_that_is_ahead_goes_forward(two: Machines) -> None:
    """Updated there, one document more there: both arrive, the history too, and memories are not
    made again.
    """
    two.laptop.update("trip", SECOND)
    two.laptop.update("trip", THIRD)
    two.laptop.add("The museum moved to Lisbon.")
    assert two.to_desktop() == Progress(added=1, updated=1, passages=2, compressed=2, taken=2)
    assert versions(two.desktop) == [(1, FIRST), (2, SECOND), (3, THIRD)]
    assert found(two.desktop) == THIRD
    assert two.engine.compressor.compressed == []
    assert [d.current for d in two.desktop.history("trip")] == [False, False, True]
    assert two.to_desktop() == Progress(unchanged=2)


def test_an_archive_that_is_behind_changes_nothing_and_says_so(
    two: Machines, caplog: pytest.LogCaptureFixture
) -> None:
    """What is here stays the current text."""
    two.desktop.update("trip", SECOND)
    with caplog.at_level(logging.WARNING, "cmt_sdk"):
        assert two.to_desktop() == Progress(unchanged=1)
    assert f"the archive has older versions of {FILE}: what is here stays" in caplog.text
    assert versions(two.desktop) == [(1, FIRST), (2, SECOND)]


def test_it_goes_to_and_fro(two: Machines) -> None:
    """Each machine takes what the other one did since."""
    for text, sender, bring in (
        (SECOND, two.laptop, two.to_desktop),
        (THIRD, two.desktop, two.to_laptop),
    ):
        sender.update("trip", text)
        assert bring().updated == 1
    assert versions(two.laptop) == versions(two.desktop) == [(1, FIRST), (2, SECOND), (3, THIRD)]


def test_a_text_that_came_back(two: Machines) -> None:
    """Undone there: the version numbers tell the later one from the earlier one."""
    two.laptop.update("trip", SECOND)
    two.to_desktop()
    two.laptop.update("trip", FIRST)
    assert two.to_desktop().updated == 1
    assert two.to_laptop() == Progress(unchanged=1)
    assert found(two.desktop) == FIRST
    two.desktop.update("trip", SECOND)
    assert two.to_laptop().updated == 1
    assert found(two.laptop) == SECOND


def test_the_same_change_on_both(two: Machines) -> None:
    """No conflict, then or later."""
    for memory in (two.laptop, two.desktop):
        memory.update("trip", SECOND)
    assert two.to_desktop() == Progress(unchanged=1)
    two.laptop.update("trip", THIRD)
    assert two.to_desktop().updated == 1
    assert found(two.desktop) == THIRD


def test_a_later_archive_of_a_third_machine(two: Machines, tmp_path: Path) -> None:
    """Whoever has the latest version hands it on."""
    two.laptop.update("trip", SECOND)
    with open_fake(tmp_path / "phone") as phone:
        phone.import_archive(two.export(two.desktop))
        phone.import_archive(two.export(two.laptop))
        two.desktop.import_archive(two.export(phone))
    assert versions(two.desktop) == [(1, FIRST), (2, SECOND)]


# -- diverged ------------------------------------------------------------------------------------


@pytest.fixture
def apart(two: Machines) -> Machines:
    """Both machines changed the note, and the laptop has another one."""
    two.laptop.update("trip", SECOND)
    two.laptop.add("The museum moved to Lisbon.", id="museum")
    two.desktop.update("trip", THIRD)
    return two


def test_diverged_histories_say_what_differs(apart: Machines) -> None:
    """Document, source, versions, dates and the ways on; nothing is imported, not the new note
    either.
    """
    with pytest.raises(AlreadyExists) as raised:
        apart.to_desktop()
    message = str(raised.value)
    assert "1 document went on here and in the archive; nothing was stored" in message
    assert f"{FILE} (trip): here version 2 of 20" in message
    assert "in the archive version 2 of 20" in message
    assert "both after version 1 here" in message
    assert all(way in message for way in ("--theirs", "--ours", "--both", "diverged="))
    assert held(apart.desktop) == [THIRD]


@pytest.mark.parametrize(
    ("way", "current", "history"),
    [
        ("theirs", [SECOND], [(1, FIRST), (2, THIRD), (3, SECOND)]),
        ("ours", [THIRD], [(1, FIRST), (2, THIRD), (3, SECOND), (4, THIRD)]),
        ("both", [SECOND, THIRD], [(1, FIRST), (2, THIRD)]),
    ],
)
def test_the_ways_on(
    apart: Machines, way: Any, current: list[str], history: list[tuple[int, str]]
) -> None:
    """Each keeps both texts; a second import of the same changes nothing, and it compressed nothing
    again.
    """
    apart.to_desktop(diverged=way)
    assert held(apart.desktop) == sorted([*current, "The museum moved to Lisbon."])
    assert versions(apart.desktop) == history
    assert apart.engine.compressor.compressed == [f"trip\n{THIRD}"]
    for again in ({}, {"diverged": way}):
        assert apart.to_desktop(**again) == Progress(unchanged=2)
    assert apart.desktop.check()
    assert all(f.ok for f in apart.desktop.check())


@pytest.mark.parametrize(("way", "text"), [("theirs", SECOND), ("ours", THIRD)])
def test_after_a_choice_the_other_machine_goes_forward(
    apart: Machines, way: Any, text: str
) -> None:
    """The choice was made once: nobody asks again."""
    apart.to_desktop(diverged=way)
    apart.to_laptop()
    assert found(apart.laptop) == found(apart.desktop) == text
    apart.laptop.update("trip", "It leaves no more: the ferry to Tarn is gone.")
    assert apart.to_desktop().updated == 1


def test_an_unknown_way_is_refused_before_the_file_is_read(two: Machines) -> None:
    """It names those that there are."""
    with pytest.raises(InvalidSetting, match="diverged='mine': choose one of ours, theirs, both"):
        two.desktop.import_archive("nowhere.cmt", diverged="mine")  # type: ignore[arg-type]


def test_one_id_for_two_texts(tmp_path: Path) -> None:
    """Chosen ids can meet by chance: there is no common version, and both can be had."""
    with open_fake(tmp_path / "a") as one, open_fake(tmp_path / "b") as other:
        one.add("The invoice of the plumber.", id="invoice-1")
        other.add("The invoice of the painter.", id="invoice-1")
        one.export(tmp_path / "a.cmt")
        with pytest.raises(AlreadyExists, match=r"'invoice-1'.*with no version in common"):
            other.import_archive(tmp_path / "a.cmt")
        other.import_archive(tmp_path / "a.cmt", diverged="both")
        assert held(other) == ["The invoice of the painter.", "The invoice of the plumber."]


def test_many_diverged_documents_are_counted(tmp_path: Path) -> None:
    """The first five by name."""
    with open_fake(tmp_path / "a") as one, open_fake(tmp_path / "b") as other:
        for n in range(7):
            one.add(f"There, {n}.", id=f"n{n}")
            other.add(f"Here, {n}.", id=f"n{n}")
        one.export(tmp_path / "a.cmt")
        with pytest.raises(AlreadyExists, match=r"7 documents went on(?s:.*)'n4'(?s:.*)and 2 more"):
            other.import_archive(tmp_path / "a.cmt")


# -- fields --------------------------------------------------------------------------------------


def change_there(two: Machines) -> None:
    """The laptop's note was renamed and labelled."""
    two.laptop.update(
        "trip", source="/home/ann/notes/ferry.md", metadata={"year": 2026}, scope="ann"
    )


def test_fields_that_changed_there_come_along(two: Machines) -> None:
    """Source, scope and metadata, though the text is the same; once."""
    change_there(two)
    assert two.to_desktop() == Progress(updated=1, compressed=1, taken=1)  # its name is another one
    document = two.desktop.get("trip")
    assert (document.source, document.scope, document.metadata) == (
        "/home/ann/notes/ferry.md",
        "ann",
        {"year": 2026},
    )
    assert two.to_desktop() == Progress(unchanged=1)


def test_fields_that_changed_here_later_stay(two: Machines) -> None:
    """An older change does not undo a later one."""
    change_there(two)
    two.desktop.update("trip", metadata={"year": 2027})
    assert two.to_desktop() == Progress(unchanged=1)
    assert two.desktop.get("trip").metadata == {"year": 2027}


def test_keys_noted_on_both_machines_meet(two: Machines) -> None:
    """Of one key the later value counts; a key that one machine has is kept, and both end alike."""
    two.desktop.update("trip", metadata={"rating": 5, "year": 2025})
    two.laptop.update("trip", metadata={"year": 2026})
    two.to_desktop()
    assert two.desktop.get("trip").metadata == {"rating": 5, "year": 2026}
    two.to_laptop()
    assert two.laptop.get("trip").metadata == {"rating": 5, "year": 2026}


# -- other ids, deletions ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ("/home/ann/notes/tea.md", "/home/ann/notes/tea.md"),
        ("/Users/ann/notes/tea.md", "/home/ann/notes/tea.md"),
        (None, None),
    ],
    ids=["the same place", "another home", "no source"],
)
@pytest.mark.parametrize("ahead", ["none", "theirs", "ours"])
def test_a_file_that_both_machines_added_is_one_document(
    two: Machines, mine: str | None, theirs: str | None, ahead: str
) -> None:
    """Also where one of them went on; it keeps its id and its place here."""
    there = two.laptop.add("Ann likes tea.", source=theirs)
    here = two.desktop.add("Ann likes tea.", source=mine)
    memory, name = (two.laptop, there.id) if ahead == "theirs" else (two.desktop, here.id)
    if ahead != "none":
        memory.update(name, "Ann likes green tea.")
    two.to_desktop()
    assert held(two.desktop) == [
        "Ann likes green tea." if ahead != "none" else "Ann likes tea.",
        FIRST,
    ]
    assert two.desktop.get(here.id).source == mine


def test_files_that_began_alike_stay_two_documents(two: Machines) -> None:
    """Daily notes begin as one template; another file's history is not theirs."""
    template = "Plan, done, open."
    there = two.laptop.add(template, source="/home/ann/notes/2026-03-04.md")
    two.laptop.update(there.id, "The fourth of March.")
    here = two.desktop.add(template, source="/home/ann/notes/2026-03-05.md")
    two.to_desktop()
    assert held(two.desktop) == sorted([template, "The fourth of March.", FIRST])
    two.desktop.update(here.id, "The fifth of March.")
    two.to_desktop()
    assert held(two.desktop) == sorted(["The fifth of March.", "The fourth of March.", FIRST])


def test_both_went_on_with_a_file_that_both_added(two: Machines) -> None:
    """That is a conflict as well, though the ids differ."""
    for memory, text in (
        (two.laptop, "Ann likes green tea."),
        (two.desktop, "Ann likes black tea."),
    ):
        memory.update(memory.add("Ann likes tea.", source="/home/ann/tea.md").id, text)
    with pytest.raises(AlreadyExists, match=r"/home/ann/tea\.md"):
        two.to_desktop()


def test_another_scope_is_another_document(two: Machines) -> None:
    """What one user told is not taken for what another one did."""
    two.laptop.add("I like tea.", scope="user/ann")
    two.desktop.add("I like tea.", scope="user/bob")
    assert two.to_desktop().added == 1


@pytest.mark.parametrize("remove", ["forget", "delete"])
def test_what_was_forgotten_here_comes_back_with_the_archive(two: Machines, remove: str) -> None:
    """Forgetting leaves no trace, not even of what was forgotten; the help of the command says
    it.
    """
    getattr(two.desktop, remove)("trip")
    assert two.to_desktop().added == 1


def test_what_was_deleted_there_stays_here(two: Machines) -> None:
    """An import takes nothing out."""
    two.laptop.delete("trip")
    two.laptop.add("The museum moved to Lisbon.")
    assert two.to_desktop().added == 1
    assert held(two.desktop) == [FIRST, "The museum moved to Lisbon."]


def test_nothing_is_imported_halfway(two: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that this memory refuses is found before the documents ahead of it are stored."""
    two.laptop.update("trip", SECOND)
    two.laptop.add("A text that is too long here.")
    with open_fake(two.desktop.path, max_document_bytes=40) as small:
        two.laptop.add("A much longer text, that has far more than forty bytes in it.")
        with pytest.raises(InvalidDocument):
            small.import_archive(two.export(two.laptop))
    assert held(two.desktop) == [FIRST]


# -- two documents of one text -------------------------------------------------------------------

RENT = "Rent is 700."
ANNA, BEN = "/k/anna.md", "/k/ben.md"


def add_file(memory: Memory, **fields: Any) -> None:
    """Add the text as the command adds a file: by its source."""
    memory.add_many([Document(RENT, **fields)], replace=True)


def twins(memory: Memory) -> set[tuple[str | None, str, str]]:
    """Sources, scopes and persons of the documents of one text."""
    return {
        (d.source, d.scope, str(d.metadata.get("person", "")))
        for d in memory.documents()
        if d.text == RENT
    }


@pytest.mark.parametrize(
    "given",
    [
        [{"source": ANNA}, {"source": BEN}],
        [{"source": "/a/k/rent.md"}, {"source": "/b/k/rent.md"}],
        [{"source": ANNA}, {"id": "free"}],
        [{"id": "one"}, {"id": "two"}],
        [{"source": ANNA, "scope": "user/anna"}, {"source": ANNA, "scope": "user/ben"}],
        [{"scope": "user/anna"}, {"scope": "user/ben"}],
        [{"source": ANNA}, {"source": BEN}, {"source": "/k/eve.md"}],
        [{"source": "mail:1"}, {"source": "mail:2"}],
    ],
    ids=[
        "two files",
        "one tail",
        "one without a source",
        "no sources",
        "two scopes",
        "no sources, scopes",
        "three",
        "names",
    ],
)
@pytest.mark.parametrize("here", ["nothing", "the first", "the last", "both", "no source"])
def test_two_documents_of_one_text_stay_two(
    two: Machines, given: list[dict[str, Any]], here: str
) -> None:
    """With their sources and metadata, whatever of them is here; a second import adds nothing."""
    for number, fields in enumerate(given):
        add_file(two.laptop, metadata={"person": f"p{number}"}, **fields)
    count = two.laptop.count()
    known = {"the first": given[:1], "the last": given[-1:], "both": given, "no source": [{}]}.get(
        here, []
    )
    for fields in known:
        add_file(two.desktop, **{k: v for k, v in fields.items() if k != "id"})
    wanted = twins(two.laptop)
    two.to_desktop()
    # else ours is a further one
    if here != "no source" or not any("scope" in fields for fields in given):
        assert twins(two.desktop) == wanted
        assert two.desktop.count() == count
    assert two.to_desktop() == Progress(unchanged=count)
    two.to_laptop()
    assert two.to_desktop().added == 0
    assert all(f.ok for f in two.desktop.check())


def test_a_twin_that_went_on_leaves_the_other(two: Machines) -> None:
    """The file of the same source goes on, not the first of the same text."""
    for source in (ANNA, BEN):
        add_file(two.laptop, source=source)
    add_file(two.desktop, source=BEN)
    two.laptop.update(next(d.id for d in two.laptop.documents() if d.source == BEN), "Rent is 800.")
    assert two.to_desktop() == Progress(
        added=1, updated=1, unchanged=1, passages=2, compressed=2, taken=2
    )
    assert {(d.source, d.text) for d in two.desktop.documents()} == {
        (FILE, FIRST),
        (ANNA, RENT),
        (BEN, "Rent is 800."),
    }


# -- the rule, by itself -------------------------------------------------------------------------

COMPARED = [
    ("a", "ab", "ahead"),
    ("ab", "a", "behind"),
    ("ab", "ab", "same"),
    ("ab", "ac", "diverged"),
    ("a", "b", "diverged"),
    ("ab", "aba", "ahead"),
    ("aba", "ab", "behind"),
    ("abc", "adc", "same"),
    ("ab", "cb", "same"),
    ("b", "abc", "ahead"),
    ("abc", "b", "behind"),
    ("ab", "ba", "diverged"),
    ("aab", "ab", "same"),
]


@pytest.mark.parametrize(("ours", "theirs", "state"), COMPARED, ids=lambda v: str(v))
def test_histories_compared(ours: str, theirs: str, state: str) -> None:
    """A letter is the text of a version."""
    mine, others = (
        [Document(t, "x", version=n) for n, t in enumerate(texts, 1)] for texts in (ours, theirs)
    )
    assert compare(mine, others).state == state


# -- the command ---------------------------------------------------------------------------------


def test_the_command(cmt: Command, tmp_path: Path) -> None:
    """Forward, refused with the ways on, and each of them; two at once are refused."""
    file = tmp_path / "notes.cmt"
    cmt("add", "--text", FIRST, "--source", "trip", "-m", "laptop")
    name = cmt.json("list", "-m", "laptop")["id"]

    def sync(*options: str, code: int = 0) -> Any:
        cmt("export", file, "--overwrite", "-m", "laptop")
        return cmt("import", file, "-m", "desktop", *options, code=code)

    taken = "compressed passages: 1 taken from the archive, 0 made again from the text\n"
    assert sync().stdout == "1 added, 0 updated, 0 unchanged\n" + taken
    cmt("update", name, "--text", SECOND, "-m", "laptop")
    assert sync().stdout == "0 added, 1 updated, 0 unchanged\n" + taken
    cmt("update", name, "--text", THIRD, "-m", "desktop")
    behind = sync()
    assert behind.stdout == "0 added, 0 updated, 1 unchanged\n"
    assert "warning: the archive has older versions of trip: what is here stays" in behind.stderr
    cmt("update", name, "--text", "It is gone.", "-m", "laptop")
    refused = sync(code=1)
    assert "--theirs" in refused.stderr
    assert refused.stdout == ""
    assert "exclude each other" in sync("--ours", "--both", code=2).stderr
    assert sync("--theirs").stdout == "0 added, 1 updated, 0 unchanged\n" + taken
    assert cmt.json("list", "-m", "desktop")["text"] == "It is gone."


def test_the_ways_are_for_archives(cmt: Command, tmp_path: Path) -> None:
    """Conversations have no versions to choose from."""
    (tmp_path / "mem0.json").write_text(
        '{"results": [{"id": "1", "memory": "Ann likes tea."}]}', "utf-8"
    )
    assert (
        "--ours is for an archive" in cmt("import", tmp_path / "mem0.json", "--ours", code=2).stderr
    )


def test_a_title_that_changed_there_reaches_the_passages_here(two: Machines) -> None:
    """What is found by the new title there is found here too."""
    two.laptop.update("trip", metadata={"title": "Flat in Lisbon"})
    two.to_desktop()
    assert {p.heading for p in two.desktop.passages("trip")} == {"Flat in Lisbon · trip"}
