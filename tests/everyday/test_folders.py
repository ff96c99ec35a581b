"""What is read in a folder, what is passed over, and what is said of it."""

import logging
import os
from pathlib import Path

import pytest

import cmt_sdk
from cmt_sdk.converting import is_placeholder, read_document, read_documents
from cmt_sdk.errors import InvalidDocument, InvalidSetting


@pytest.fixture
def folder(tmp_path, caplog):
    """Makes files of a folder; what is read in it by name, and the warnings without the path."""
    top = tmp_path / "notes"

    def made(files, links=(), exclude=(), at=""):
        for name in [files] if isinstance(files, str) else files:
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[name] if isinstance(files, dict) else f"This is {name}.")
        for link, target in links:
            (top / link).symlink_to(target, target_is_directory=True)
        caplog.clear()
        root = top / at
        with caplog.at_level(logging.WARNING):
            found = [
                os.path.relpath(d.source, top.resolve())
                for d in read_documents([root], exclude=exclude)
            ]
        return found, [m.replace(str(top), "notes") for m in caplog.messages]

    return made


def test_other_kinds_are_counted_once(folder):
    """Listed: a folder with files that cannot be read said nothing of them."""
    names = ["a.md", "b.key", "c.key", "d.doc", "e.jpg", "f.py", "Makefile", "deep/g.jpg"]
    kinds = "7 files of other kinds (2 key, 2 jpg, 1 without a suffix, 1 doc, 1 py)"
    assert folder(names) == (
        ["a.md"],
        [
            (
                f"passed over: in notes: {kinds}: such as Makefile, b.key, c.key; a text file is read"
                " where it is named itself"
            )
        ],
    )


@pytest.mark.parametrize(
    "suffix", [".toml", ".ini", ".conf", ".cfg", ".properties", ".INI", ".yaml"]
)
def test_settings_are_read(folder, suffix):
    """As yaml is; hidden ones, which may hold secrets, and what systems put into folders are
    not.
    """
    files = [
        f"printer{suffix}",
        f".printer{suffix}",
        f".git/config{suffix}",
        ".env",
        "desktop.ini",
        "deep/.npmrc",
    ]
    assert folder(files) == ([f"printer{suffix}"], [])


def test_nothing_is_said_twice(folder):
    """A folder that is looked at again and again says the same only once."""
    assert len(folder(["a.md", "b.key"])[1]) == 1
    assert folder(["a.md"])[1] == []
    assert len(folder(["c.key"])[1]) == 1


@pytest.mark.parametrize(
    "name",
    [
        "~$letter.docx",
        ".~lock.letter.odt#",
        "Thumbs.db",
        "desktop.ini",
        "a.tmp",
        "b.pdf.crdownload",
        "c.pdf.part",
        "d.download",
        "e.md~",
        "#f.md#",
        ".DS_Store",
        "g.bak",
        "__MACOSX/h.md",
        "$RECYCLE.BIN/i.md",
        "package-lock.json",
    ],
)
def test_litter_is_left_out_without_a_word(folder, name):
    """Lock files of Word (listed) and LibreOffice, halves of downloads, thumbnails."""
    assert folder(["a.md", name]) == (["a.md"], [])


IGNORED = {
    "a name (listed)": ({".gitignore": "secret.md\n", "a.md": "A.", "secret.md": "S."}, ["a.md"]),
    "a folder": ({".gitignore": "private/\n", "a.md": "A.", "private/s.md": "S."}, ["a.md"]),
    "taken back": ({".gitignore": "*.md\n!a.md\n", "a.md": "A.", "s.md": "S."}, ["a.md"]),
    "nested": ({"x/.gitignore": "s.md\n", "s.md": "A.", "x/s.md": "S."}, ["s.md"]),
    "nested and taken back": (
        {".gitignore": "*.log\n", "x/.gitignore": "!s.log\n", "a.log": "A.", "x/s.log": "S."},
        ["x/s.log"],
    ),
    "anchored": ({".gitignore": "/s.md\n", "s.md": "S.", "x/s.md": "A."}, ["x/s.md"]),
    "two stars": ({".gitignore": "x/**/s.md\n", "x/y/z/s.md": "S.", "s.md": "A."}, ["s.md"]),
    "comment and space": (
        {".gitignore": "# s.md\n\ns.md   \n", "s.md": "S.", "# s.md": "A."},
        ["# s.md"],
    ),
    "search programs": ({".ignore": "s.md\n", "s.md": "S.", "a.md": "A."}, ["a.md"]),
    "bad lines": ({".gitignore": "!\n[\ns.md\n", "s.md": "S.", "a.md": "A."}, ["a.md"]),
    "Windows line ends": ({".gitignore": "s.md\r\n", "s.md": "S.", "a.md": "A."}, ["a.md"]),
}


@pytest.mark.parametrize(("files", "read"), IGNORED.values(), ids=IGNORED)
def test_ignore_files(folder, files, read):
    """What git would not take is not read; how much that is, is said."""
    found, messages = folder(files)
    assert found == read
    assert messages == ["passed over: in notes: 1 file or folder that .gitignore or .ignore names"]


def test_the_repository_above(folder):
    """The patterns of the repository hold in a folder of it, unless they name that folder
    itself.
    """
    files = {
        ".git/HEAD": "x",
        ".gitignore": "secret.md\nbuilt/\n",
        "docs/a.md": "A.",
        "docs/secret.md": "S.",
        "built/b.md": "B.",
    }
    assert folder(files, at="docs")[0] == ["docs/a.md"]
    assert folder({}, at="built")[0] == ["built/b.md"]


@pytest.mark.parametrize("given", [".", "docs", "../notes/docs", ""])
def test_ignore_files_for_relative_folders(folder, tmp_path, monkeypatch, given):
    """However the folder is written, from wherever."""
    files = {".git/HEAD": "x", ".gitignore": "docs/s.md\n", "docs/.gitignore": "/t.md\n"}
    folder(files | {"docs/a.md": "A.", "docs/s.md": "S.", "docs/t.md": "T.", "docs/x/t.md": "X."})
    monkeypatch.chdir(tmp_path / "notes" / ("docs" if given == "." else ""))
    found = read_documents([given or tmp_path / "notes" / "docs"], exclude=["x/"])
    assert [d.text for d in found] == ["A."]


@pytest.mark.parametrize(
    ("files", "read"),
    [
        (["a.md", "package.json", "node_modules/left-pad/README.md"], ["a.md", "package.json"]),
        (["a.md", "pyproject.toml", "build/lib/b.md"], ["a.md", "pyproject.toml"]),
        (["a.md", "build/plans.md"], ["a.md", "build/plans.md"]),
        (["a.md", "Cargo.toml", "target/doc.md"], ["Cargo.toml", "a.md"]),
        (["a.md", "target/customers.md"], ["a.md", "target/customers.md"]),
        (["a.md", "cache/CACHEDIR.TAG", "cache/b.md"], ["a.md"]),
        (["a.md", "myenv/pyvenv.cfg", "myenv/lib/LICENSE.txt"], ["a.md"]),
        (["pages/a.md", "logseq/config.edn", "logseq/bak/a.md"], ["pages/a.md"]),
        (["a.md", "App.csproj", "obj/project.json"], ["a.md"]),
    ],
    ids=[
        "node (listed)",
        "python",
        "no project",
        "rust",
        "no crate",
        "cache tag",
        "environment",
        "logseq",
        "dotnet",
    ],
)
def test_folders_that_programs_fill(folder, files, read):
    """Told by the files that the program puts beside or into them, not by their names alone; they
    are named.
    """
    found, messages = folder(files)
    assert found == read
    assert ("folders that programs fill" in " ".join(messages)) == (
        len(found) < len([f for f in files if f.endswith((".md", ".json", ".txt", ".toml"))])
    )


@pytest.mark.parametrize(
    ("patterns", "read"),
    [
        (["*.txt"], ["a.md", "x/b.md"]),
        (["x/"], ["a.md", "c.txt"]),
        (["x"], ["a.md", "c.txt"]),
        (["/a.md"], ["c.txt", "x/b.md"]),
        (["*.md", "!a.md"], ["a.md", "c.txt"]),
        (["./x/b.md"], ["a.md", "c.txt"]),
        (["x/**"], ["a.md", "c.txt"]),
        (["nothing"], ["a.md", "c.txt", "x/b.md"]),
    ],
)
def test_exclude(folder, patterns, read):
    """Patterns are those of .gitignore; what they name is left out without a word."""
    assert folder(["a.md", "x/b.md", "c.txt"], exclude=patterns) == (read, [])


def test_exclude_by_a_path(folder, tmp_path):
    """People give what their shell completes."""
    assert folder(["a.md", "x/b.md"], exclude=[str(tmp_path / "notes" / "x")])[0] == ["a.md"]


def test_a_pattern_that_is_none(folder):
    """The message shows what was given."""
    with pytest.raises(InvalidSetting, match=r"exclude=\['!'\].*gitignore"):
        folder(["a.md"], exclude=["!"])


def test_a_file_that_is_named_is_read(tmp_path):
    """Ignore files and patterns choose among what is found, not what is asked for."""
    (tmp_path / ".gitignore").write_text("secret.md\n")
    (tmp_path / "secret.md").write_text("Lisbon.")
    assert [d.text for d in read_documents([tmp_path / "secret.md"], exclude=["*.md"])] == [
        "Lisbon."
    ]


def test_links_to_folders(folder, tmp_path):
    """Listed: a link to a folder elsewhere was passed over in silence. Into the same folder nothing
    is lost.
    """
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.md").write_text("B.")
    found, messages = folder(
        ["a.md", "x/c.md"], links=[("out", tmp_path / "elsewhere"), ("in", "x"), ("up", "..")]
    )
    assert found == ["a.md", "x/c.md"]
    assert messages == [
        (
            "passed over: in notes: 2 links to folders (notes/out, notes/up): add the folders"
            " themselves"
        )
    ]


def test_a_linked_file_has_its_own_path(tmp_path):
    """Listed: it was read under its target's path, so that taking the link away changed nothing. A
    link that is named is read.
    """
    (tmp_path / "target.md").write_text("T.")
    (tmp_path / "link.md").symlink_to("target.md")
    assert read_document(tmp_path / "link.md").source == (tmp_path.resolve() / "link.md").as_posix()


PRIVATE = "PRIVATE KEY 12345"


@pytest.mark.parametrize(
    "kind",
    [
        "absolute",
        "relative",
        "chain",
        "through /proc",
        "through a linked folder",
        "up and down",
        "hidden target",
        "ignore file",
    ],
)
def test_no_link_is_followed_out_of_a_folder(folder, tmp_path, kind):
    """Whatever the way: the file elsewhere is not read, and the count is told; the files of the
    folder are.
    """
    secret = tmp_path / "outside" / "key.md"
    secret.parent.mkdir()
    secret.write_text(PRIVATE)
    (tmp_path / "outside" / "back").symlink_to(tmp_path / "notes")
    (tmp_path / "hop.md").symlink_to(secret)
    target = {
        "absolute": secret,
        "relative": "../outside/key.md",
        "chain": tmp_path / "hop.md",
        "through /proc": f"/proc/self/root{secret.resolve()}",
        "through a linked folder": "door/key.md",
        "up and down": "../notes/../outside/key.md",
        "hidden target": secret,
        "ignore file": secret,
    }[kind]
    name = ".gitignore" if kind == "ignore file" else "README.md"
    links = [(name, target)]
    if kind == "through a linked folder":
        links = [("door", tmp_path / "outside"), *links]
    if kind == "through /proc" and not Path(target).exists():
        pytest.skip("this system has no /proc")
    found, messages = folder(["a.md"], links=links)
    assert found == ["a.md"]
    if name == "README.md":
        assert any(
            "1 link to a file elsewhere (README.md): links are not followed" in m for m in messages
        )


def test_a_file_that_became_a_link_is_not_read_again(cmt, tmp_path):
    """Nor one in a folder that became a link: what a folder holds by now is judged, not what was
    remembered of it.
    """
    notes, outside = tmp_path / "notes", tmp_path / "outside"
    for place in (notes / "sub", outside):
        place.mkdir(parents=True)
    (notes / "a.md").write_text("The tea is green.")
    (notes / "sub" / "b.md").write_text("The cup is blue.")
    (outside / "b.md").write_text(PRIVATE)
    cmt("add", notes)
    (notes / "a.md").unlink()
    (notes / "a.md").symlink_to(outside / "b.md")
    (notes / "sub" / "b.md").unlink()
    (notes / "sub").rmdir()
    (notes / "sub").symlink_to(outside)
    cmt("add", notes, code=None)
    assert PRIVATE not in cmt("list", "--json", code=None).output


def test_a_link_to_a_file_beside_it(folder):
    """The text is read once, where it is."""
    assert folder(["a.md"], links=[("b.md", "a.md")])[0] == ["a.md"]


def test_a_root_through_a_link(folder, tmp_path):
    """However a folder is reached, its files keep their sources."""
    folder(["a.md"])
    (tmp_path / "way").symlink_to(tmp_path / "notes", target_is_directory=True)
    (via,) = read_documents([tmp_path / "way"])
    assert (
        via.source
        == read_document(tmp_path / "way" / "a.md").source
        == (tmp_path / "notes" / "a.md").resolve().as_posix()
    )


@pytest.mark.parametrize("name", [".plan.md.icloud", "plan.md.nextcloud", "plan.pdf.owncloud"])
def test_files_that_lie_in_a_cloud(folder, tmp_path, name):
    """They are named, not read as text; named themselves, they are refused with the remedy."""
    found, messages = folder({"a.md": "A.", name: "bplist00 stub"})
    assert found == ["a.md"]
    assert messages == [
        f"passed over: in notes: 1 file whose contents lie in a cloud, not on this disk ({name})"
    ]
    assert is_placeholder(tmp_path / "notes" / name)
    assert not is_placeholder(tmp_path / "notes" / "a.md")
    with pytest.raises(InvalidDocument, match="only stands for a file in a cloud: fetch that file"):
        read_document(tmp_path / "notes" / name)


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="this system shows no open files as paths")
def test_a_pipe_has_no_source():
    """Listed: `cmt add <(command)` had another source at each call, and was never updated."""
    out, into = os.pipe()
    os.write(into, b"The museum moved.")
    os.close(into)
    document = read_document(f"/dev/fd/{out}")
    os.close(out)
    assert (document.text, document.source) == ("The museum moved.", None)


def test_the_front_door_names_the_suffixes():
    """Who follows a folder asks the same list."""
    assert {".md", ".pdf", ".docx", ".eml", ".xlsx", ".ipynb"} <= cmt_sdk.FILE_SUFFIXES
    assert ".py" not in cmt_sdk.FILE_SUFFIXES
