"""What a document is called reaches its passages: in the order of the places where people write
it.
"""

import pytest

from cmt_sdk import Document
from cmt_sdk.testing.fakes import FakeEngine, open_fake
from cmt_sdk.text.splitting.headings import Measure, path_of
from cmt_sdk.text.titles import title_of

# a last section, since those of a short document are one passage
LONG = "\n\n## Notes\n\n" + "The keeper noted the weather of the day. " * 20

LEASE = "/home/ann/Documents/notes/lease.md"

# The sources of documents, with what they are called.
SOURCES = {
    "trip.md": "trip",
    "Kestrel router/Address.md": "Kestrel router > Address",
    "Houses/Kestrel/Bills/2026.md": "Houses > Kestrel > Bills > 2026",
    "Journal/2026/03/04.md": "Journal > 2026-03-04",
    "/home/ann/Documents/notes/Kestrel lease.md": "Kestrel lease",
    "/home/ann/Documents/notes/Houses/Kestrel/Bills/2026.md": "Houses > Kestrel > Bills > 2026",
    "/home/ann/notes/kestrel-router/address.md": "kestrel router > address",
    "/home/ann/Dokumente/Häuser/Miete.md": "Häuser > Miete",
    "/home/ann/журнал/2026/03/04.md": "журнал > 2026-03-04",
    "/Users/ann/Library/Mobile Documents/iCloud~md~obsidian/Documents/Vault/Journal/2026/03/04.md": (
        "Journal > 2026-03-04"
    ),
    "/Users/ann/Library/CloudStorage/GoogleDrive-ann@example.org/My Drive/Miete/Kestrel.md": (
        "Miete > Kestrel"
    ),
    "/tmp/pytest-of-root/pytest-3/test_x0/Kestrel lease.md": "Kestrel lease",  # noqa: S108
    "/tmp/pytest-of-root/pytest-3/test_x0/Kestrel router/Address.md": ("Kestrel router > Address"),  # noqa: S108
    "/tmp/tmpab12cd34/notes/kestrel/address.md": "kestrel > address",  # noqa: S108
    "/private/var/folders/zz/abc123/T/tmpab12cd34/Lease.txt": "Lease",
    "/mnt/data/notes/Kestrel.md": "Kestrel",
    "/media/ann/STICK/Houses/Kestrel.md": "Houses > Kestrel",
    "C:\\Users\\ann\\OneDrive\\Dokumente\\Mietvertrag Kestrel.docx": "Mietvertrag Kestrel",
    "D:\\Kestrel router\\Address.md": "Kestrel router > Address",
    "\\\\nas\\share\\Häuser\\Kestrel.md": "Häuser > Kestrel",
    "/home/ann/notes/Kestrel/README.md": "Kestrel",
    "/home/ann/content/posts/kestrel-lease/index.md": "posts > kestrel lease",
    "/home/ann/notes/Kestrel router/Kestrel router.md": "Kestrel router",
    "/home/ann/notes/Bills/2026/2026-03.md": "Bills > 2026-03",
    "/home/ann/notes/2026/03-March/2026-03-04.md": "2026-03-04",
    "/home/ann/notes/journals/2026_03_04.md": "2026-03-04",
    "/home/ann/notes/daily/20260304.md": "daily > 2026-03-04",
    "04.03.2026.md": "04.03.2026",
    "March 4th, 2026.md": "March 4th, 2026",
    "202603041530 Kestrel lease.md": "2026-03-04 Kestrel lease",
    "2026-03-04-kestrel-lease.md": "2026-03-04 kestrel lease",
    "kestrel_router_setup.md": "kestrel router setup",
    "house.kestrel.lease.md": "house kestrel lease",
    "house___kestrel.md": "house / kestrel",
    "house%2Fkestrel.md": "house/kestrel",
    "KestrelRouter.md": "Kestrel Router · KestrelRouter",
    "Kestrel lease 1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d.md": "Kestrel lease",
    "E-1043.md": "E-1043",
    "RFC2616.txt": "RFC2616",
    "COVID-19.md": "COVID-19",
    "v1.2.md": "v1.2",
    "Dr. Falk.md": "Dr. Falk",
    "Kestrel: the lease.md": "Kestrel: the lease",
    "/Users/ann/Te\u0301le\u0301chargements/Kestrel.md": "Kestrel",
    "打印机.md": "打印机",
    "cafe\u0301.md": "caf\u00e9",
    "مفتاح المخزن.md": "مفتاح المخزن",
    "https://example.org/wiki/Kestrel_(falcon)": "Kestrel (falcon)",
    "https://example.org/2026/kestrel-lease.html?utm=1#top": "kestrel lease",
    "file:///home/ann/notes/Kestrel%20lease.md": "Kestrel lease",
    "IMG_20260304_102233.txt": "2026-03-04",
    "IMG-20260304-WA0001.txt": "2026-03-04",
    "Kestrel lease": "Kestrel lease",
}
SAY_NOTHING = [
    "", "-", "chat", "agent", "squad/5a3f9c1e00aabbcc", "chatgpt:67a1b2", "wiki/Kestrel",
    "/proc/25828/fd/pipe:[86101]", "/dev/fd/63", "<stdin>",
    "https://example.org/", "https://example.org/p/5a3f9c1e00aabbcc", "s3://bucket/0a1b2c3d4e5f6a7b",
    "untitled.md", "Untitled (2).md", "Unbenannt 3.md", "Sans titre.odt", "Sin título 2.docx",
    "Bez tytułu.md", "无标题.md", "名称未設定 3.txt", "제목 없음.txt", "Без имени 1.odt",
    "Dokument1.docx", "New Text Document (3).txt", "Neues Textdokument.txt",
    "IMG_2041.txt", "DSC01234.txt", "P1010023.txt", "Scan 0001.pdf", "Scan0001.pdf", "scan-3.pdf",
    "a.md", "X.txt", "0001.md", "1709541234.json", "5a3f9c1e.md", "d41d8cd98f00b204e9800998ecf8427e.html",
    "550e8400-e29b-41d4-a716-446655440000.md", "dQw4w9WgXcQ.txt", "a8f3k2l9x0.md", "tmp8x2k_q1z.txt",
    "README.md", "/home/ann/README.md", "index.html",
]  # fmt: skip
# The tops of texts in a file lease.md, with what the document is called.
TOPS = {
    "yaml": (
        "---\ntitle: Kestrel lease\naliases: [Falcon agreement]\ntags:\n  - tenancy\ndate: 2026-03-04\n---\n",
        "Kestrel lease · Falcon agreement · 2026-03-04 · #tenancy",
    ),
    "yaml, obsidian links and tags": (
        '---\nTitle: "[[Kestrel|Kestrel lease]]"\nalias: Falcon\ntags: "#tenancy #rent"\n---\n',
        "Kestrel lease · Falcon · #tenancy · #rent",
    ),
    "yaml, a number": ("---\ntitle: 1984\n---\n", "1984 · lease"),
    "yaml, a version is no number": ("---\ntitle: Kestrel 1.10\n---\n", "Kestrel 1.10 · lease"),
    "yaml, a date with time": ("---\ndate: 2026-03-04T10:00:00+01:00\n---\n", "lease · 2026-03-04"),
    "yaml, a day that is none": ("---\ndate: 2026-13-45\n---\n", "lease · 2026-13-45"),
    "yaml, broken by a colon": ("---\ntitle: Kestrel: the lease\ntags: a, b\n---\n", "Kestrel: the lease · #a · #b"),
    "yaml, broken by a tab and a quote": ('---\ntitle: "Kestrel lease\n\tx: [\n---\n', "Kestrel lease"),
    "yaml, a template": ("---\ntitle: {{title}}\ndate: {{date}}\n---\n", "lease"),
    "yaml, ends in dots": ("---\ntitle: Kestrel\n...\n", "Kestrel · lease"),
    "yaml, never closed": ("---\ntitle: Kestrel lease\n", "lease"),
    "yaml, an object": ("---\ntitle: !!python/object/apply:os.getcwd []\n---\n", "lease"),
    "yaml, endless brackets": ("---\ntitle: " + "[" * 9_000 + "\n---\n", "lease"),
    "yaml, a bomb of aliases": (
        "---\na: &a [x, x]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
        + "aliases: *i\ntitle: Kestrel\n---\n",
        "Kestrel · lease",
    ),
    "a rule is none": ("---\n\nThe lease.\n\n---\n\n", "lease"),
    "toml": (
        '+++\ntitle = "Kestrel lease"\ndate = 2026-03-04T10:00:00Z\ntags = ["rent"]\n+++\n',
        "Kestrel lease · 2026-03-04 · #rent",
    ),
    "toml, broken": ("+++\ntitle = Kestrel lease\n+++\n", "Kestrel lease"),
    "logseq": (
        "title:: Kestrel lease\nalias:: Falcon\ntags:: [[tenancy]], rent\n\n- ",
        "Kestrel lease · Falcon · #tenancy · #rent",
    ),
    "logseq, in a block": ("- title:: Kestrel lease\n- ", "Kestrel lease"),
    "org": (
        "#+TITLE: Kestrel lease\n#+FILETAGS: :tenancy:rent:\n#+DATE: <2026-03-04 Wed>\n\n",
        "Kestrel lease · 2026-03-04 · #tenancy · #rent",
    ),
    "org, roam": (
        ':PROPERTIES:\n:ID: 550e8400-e29b-41d4-a716-446655440000\n:ROAM_ALIASES: "Falcon deal"\n:END:\n#+title: Kestrel lease\n',
        "Kestrel lease · Falcon deal",
    ),
    "multimarkdown": ("Title: Kestrel lease\nDate: 2026-03-04\n\n", "Kestrel lease · 2026-03-04"),
    "pandoc": ("% Kestrel lease\n% Ann Abel\n\n", "Kestrel lease"),
    "latex": ("\\documentclass{article}\n\\title{Kestrel lease}\n", "Kestrel lease"),
    "a line with a colon is none": ("Address: 10.0.0.7\nTitle: none\n", "lease"),
    "its own heading": ("# LEASE\n\n", "LEASE"),
    "its own underlined heading": ("Lease\n=====\n\n", "Lease"),
    "another language": ("---\ntitle: Großes Haus\nkeywords: [Miete]\n---\n", "Großes Haus · lease · #Miete"),
}  # fmt: skip


@pytest.mark.parametrize(("source", "title"), SOURCES.items(), ids=SOURCES)
def test_a_file_s_name_and_folders(source, title):
    """As a person reads them, without what systems and programs put around them."""
    assert title_of(Document("x", source=source)) == title


@pytest.mark.parametrize("alias", ["flat", "the flat in Rome", "Wohnung", "7"])
def test_another_name_stands_behind_the_title(alias):
    """Listed: before it, the alias "flat" was read as the answer. A heading that is the title
    stands once.
    """
    text = (
        f"---\ntitle: Rental contract\naliases: [{alias}]\n---\n# Rental contract\n\nThe rent is"
        " 950 euros."
    )
    title = title_of(Document(text, source="/home/ann/x/contract.md"))
    assert title.endswith(f"Rental contract · {alias}")
    assert (
        path_of(
            title, ["Rental contract", "Rent"], 99, Measure(lambda texts: [1 for _ in texts])
        ).later
        == f"{title} > Rent"
    )


@pytest.mark.parametrize("source", SAY_NOTHING)
def test_names_that_say_nothing(source):
    """They give no title: it would be noise in every passage."""
    assert title_of(Document("x", source=source)) == ""


@pytest.mark.parametrize(("top", "title"), TOPS.values(), ids=TOPS)
def test_what_a_text_says_at_its_top(top, title):
    """Title, aliases, date and tags of every usual form; broken ones fail no add."""
    assert title_of(Document(f"{top}The rent is 950 euros.", source=LEASE)) == title


@pytest.mark.parametrize(
    ("metadata", "title"),
    [
        ({"title": "Kestrel lease"}, "Kestrel lease"),
        ({"title": "Rent 2026"}, "Rent 2026 · lease"),
        ({"title": "  Kestrel \n lease "}, "Kestrel lease"),
        ({"title": "Microsoft Word - Kestrel lease.docx"}, "Kestrel lease"),
        ({"title": "untitled"}, "lease"),
        ({"title": "PowerPoint Presentation"}, "lease"),
        ({"title": 7}, "lease"),
        ({"subject": "Your lease"}, "Your lease"),
        ({"file_name": "Kestrel lease.pdf"}, "Kestrel lease"),
        (
            {"title": "Kestrel lease", "tags": "rent, tenancy", "date": "2026-03-04"},
            "Kestrel lease · 2026-03-04 · #rent · #tenancy",
        ),
        ({"colour": "red", "n": 3}, "lease"),
        ({"role": "user"}, ""),
    ],
)  # fmt: skip
def test_what_metadata_say(metadata, title):
    """They come before the text and the file, except where they say nothing."""
    assert title_of(Document("The rent is 950 euros.", source=LEASE, metadata=metadata)) == title


def test_a_title_that_is_too_long_keeps_its_beginning():
    """The details are left out first, then the folders, then the last words."""
    document = Document(
        "---\ntags: [rent]\n---\n", source="Houses/Kestrel lease of the year 2026.md"
    )
    for room, title in (
        (60, "Houses > Kestrel lease of the year 2026 · #rent"),
        (40, "Houses > Kestrel lease of the year 2026"),
        (30, "Kestrel lease of the year 2026"),
        (20, "Kestrel lease of the"),
        (3, ""),
    ):
        assert title_of(document, lambda t, room=room: len(t) <= room) == title


# -- in a memory ---------------------------------------------------------------------------------


@pytest.fixture
def engine() -> FakeEngine:
    """Its compressor lists what it compressed."""
    return FakeEngine()


@pytest.fixture
def memory(tmp_path, engine):
    with open_fake(tmp_path / "memory", engine) as opened:
        yield opened


def contents(memory, name: str) -> list[str]:
    """What the model reads of a document."""
    return [p.content for p in memory.passages(name)]


def test_the_title_is_compressed_matched_found_by_words_and_read(memory, engine):
    """Two notes that say the same of two routers are told apart by their files' names alone."""
    for bird, address in (("Kestrel", "10.0.0.7"), ("Falcon", "10.0.0.9")):
        memory.add(f"Address: {address}", source=f"/home/ann/notes/{bird} router.md")
    assert engine.compressor.compressed[0] == "Kestrel router\nAddress: 10.0.0.7"
    for mode in ("text", "vector", "fused", "reranked"):
        for bird, address in (("Kestrel", "10.0.0.7"), ("Falcon", "10.0.0.9")):
            assert (
                memory.search(f"{bird} router", 1, mode=mode)[0].passage.text
                == f"Address: {address}"
            )
    for kind in ("memory", "text"):
        answer = memory.model.ask("What is the address of the Falcon router?", reader=kind, k=1)
        assert answer.sources[0].source == "/home/ann/notes/Falcon router.md"


def test_every_passage_of_a_document_carries_it(memory):
    """Under every heading of its own."""
    text = (
        "---\ntitle: Kestrel lease\n---\n\n## Rent\n\n950 euros.\n\n## Deposit\n\n1900 euros."
        + LONG
    )
    memory.add(text, id="lease")
    assert contents(memory, "lease")[1:3] == [
        "Kestrel lease > Rent\n950 euros.",
        "Kestrel lease > Deposit\n1900 euros.",
    ]


def test_a_heading_that_says_the_title_does_not_stand_twice(memory):
    """Whatever the capitals and signs of the file's name."""
    text = "# Kestrel Lease\n\nText.\n\n## Rent\n\n950 euros." + LONG
    memory.add(text, id="lease", source="kestrel-lease.md")
    assert contents(memory, "lease")[:2] == [
        "Kestrel Lease\nText.",
        "Kestrel Lease > Rent\n950 euros.",
    ]


def test_names_are_found_in_both_forms(memory):
    """As they are written and as they are read."""
    memory.add("Address: 10.0.0.7", source="KestrelRouter.md")
    memory.add("Address: 10.0.0.9", source="falcon_router.md")
    for query, source in (
        ("KestrelRouter", "KestrelRouter.md"),
        ("kestrel", "KestrelRouter.md"),
        ("falcon_router", "falcon_router.md"),
        ("falcon", "falcon_router.md"),
    ):
        assert memory.search(query, 1, mode="text")[0].document.source == source


@pytest.mark.parametrize(
    ("before", "change"),
    [
        (
            {"source": "/home/ann/notes/Kestrel router.md"},
            {"source": "/home/ann/notes/Falcon router.md"},
        ),
        ({"metadata": {"title": "Kestrel router"}}, {"metadata": {"title": "Falcon router"}}),
    ],
    ids=["source", "metadata"],
)
def test_another_name_takes_the_place_of_the_old_one(memory, before, change):
    """Search, memory and answer go by the new name at once, and the old one finds nothing."""
    memory.add("Address: 10.0.0.7", id="r", **before)
    assert memory.update("r", **change).ready
    assert contents(memory, "r") == ["Falcon router\nAddress: 10.0.0.7"]
    assert memory.get("r").version == 1
    assert len(memory.search("Falcon", 5, mode="text")) == 1
    assert memory.search("Kestrel", 5, mode="text") == []
    assert {f.check: f.detail for f in memory.check() if not f.ok} == {}


def test_a_renamed_file_under_watch_is_called_by_its_new_name(cmt, tmp_path):
    """What was known of it, its id among it, stays."""
    folder = tmp_path / "Notes"
    folder.mkdir()
    (folder / "Kestrel router.md").write_text("Address: 10.0.0.7")
    cmt("watch", folder, "--once")
    before = cmt.json("list")["id"]
    (folder / "Kestrel router.md").rename(folder / "Falcon router.md")
    cmt("watch", folder, "--once")
    assert cmt.json("list")["id"] == before
    assert len(cmt.json("search", "Falcon", "--mode", "text")) == 1
    assert cmt.json("search", "Kestrel", "--mode", "text") == []


def test_new_metadata_of_a_known_text_name_it(memory, engine):
    """Adding the same text again, with a title."""
    memory.add("950 euros.", id="r")
    memory.add("950 euros.", metadata={"title": "Kestrel rent"})
    assert contents(memory, "r") == ["Kestrel rent\n950 euros."]
    assert engine.compressor.compressed == ["950 euros.", "Kestrel rent\n950 euros."]


def test_an_edited_file_keeps_the_title_that_its_metadata_gave(memory):
    """The next version, which comes without metadata, is called as the one before."""
    given = Document("950 euros.", source="a.md", metadata={"title": "Kestrel rent"})
    memory.add_many([given])
    memory.add_many([Document("975 euros.", source="a.md")], replace=True)
    (document,) = memory.documents()
    assert contents(memory, document.id) == ["Kestrel rent\n975 euros."]


def test_added_alone_or_with_its_folder_a_file_has_one_name(cmt, tmp_path):
    """Nothing is compressed again."""
    folder = tmp_path / "Kestrel router"
    folder.mkdir()
    (folder / "address.md").write_text("10.0.0.7")
    cmt("add", folder / "address.md")
    for given in (folder, tmp_path, folder / "address.md"):
        assert cmt.json("add", given)["unchanged"] >= 1
    document = cmt.json("list")
    assert [p["heading"] for p in cmt.json("show", document["id"])["passages"]] == [
        "Kestrel router > address"
    ]


# -- memories already made -----------------------------------------------------------------------


def make_as_before(memory, monkeypatch, texts: dict[str, str]) -> None:
    """Documents whose passages carry no title, as releases before wrote them."""
    with monkeypatch.context() as patch:
        patch.setattr("cmt_sdk.memory.ingestion.title_of", lambda *_: "")
        for name, text in texts.items():
            memory.add(text, id=name, source=f"{name}.md")


OLD = {"kestrel": "Address: 10.0.0.7", "falcon": "Address: 10.0.0.9", "5a3f9c1e": "Without a name."}


def test_memories_already_made_are_read_as_they_are(memory, engine, monkeypatch):
    """Opening, asking, adding the same text again and changing other fields cut nothing."""
    make_as_before(memory, monkeypatch, OLD)
    engine.compressor.compressed.clear()
    memory.add_many([Document(t, source=f"{n}.md") for n, t in OLD.items()], replace=True)
    memory.update("kestrel", scope="user/ann")
    assert contents(memory, "kestrel") == ["Address: 10.0.0.7"]
    assert engine.compressor.compressed == []


def test_reencode_brings_the_new_form_to_what_lacks_it(memory, engine, monkeypatch):
    """Only what is cut otherwise now is compressed again; a second call does nothing."""
    make_as_before(memory, monkeypatch, OLD)
    engine.compressor.compressed.clear()
    assert memory.reencode() == 2
    assert sorted(engine.compressor.compressed) == [
        "falcon\nAddress: 10.0.0.9",
        "kestrel\nAddress: 10.0.0.7",
    ]
    assert memory.reencode() == 0
    assert memory.search("kestrel", 1, mode="text")[0].document.id == "kestrel"
    assert {f.check: f.detail for f in memory.check() if not f.ok} == {}


def test_reencode_that_was_interrupted_goes_on(tmp_path, monkeypatch):
    """Everything is found and read in between; what is done is not done again."""
    engine = FakeEngine()
    with open_fake(tmp_path / "memory", engine) as memory:
        make_as_before(
            memory, monkeypatch, {f"note{n} of Ann": f"Fact number {n}." for n in range(40)}
        )
        engine.compressor.compressed.clear()

        def stop(progress):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            memory.reencode(stop)
    with open_fake(tmp_path / "memory", engine) as memory:
        done = len(engine.compressor.compressed)
        assert 0 < done < 40
        assert len(memory.search("fact number", 50, mode="text")) == 40
        assert memory.model.ask("What is fact number 39?").text
        memory.reencode()
        assert len(engine.compressor.compressed) == 40
        assert memory.stats().pending == 0


@pytest.mark.parametrize(
    "line", ["# a " + " " * 40_000 + "b", "[[" * 40_000, " " * 40_000 + "x", "# " + "a #" * 20_000]
)
def test_a_long_first_line_costs_no_more_than_its_length(line):
    """No expression goes back and forth in it; this ends at once or not for hours."""
    title_of(Document(line + "\nThe ferry leaves at ten.", source="ferry.md"))
    assert title_of(Document("---\n" + line + "\n---\nText.", source="ferry.md")).endswith("ferry")
