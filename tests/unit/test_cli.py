"""Each command of `cmt` over real memories on disk with a fake language model."""

import json
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner

from cmt_cli.main import COMMANDS, main
from cmt_sdk.testing.fakes import FINGERPRINT, open_fake
from cmt_sdk.types import CompressedPassage, Encoded

LISBON = "The museum moved to Lisbon in 2019."
PORTO = "The museum moved to Porto in 2021."


def ids(cmt):
    """The ids of all documents."""
    return [json.loads(line)["id"] for line in cmt("list", "--all", "--json").stdout.splitlines()]


def test_add_and_ask(cmt, tmp_path, monkeypatch):
    """A file is remembered, and answered from with its name; with -v also its offsets, score and
    reasons.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trip.md").write_text(LISBON)
    assert cmt("add", "trip.md").stdout == "1 added, 0 updated, 0 unchanged\n"
    answer, sure, source, text = cmt("ask", "Where did the museum move?").stdout.splitlines()
    assert answer == LISBON
    assert re.fullmatch(r"confidence [01]\.\d\d, read from memory", sure)
    assert source == "trip.md"
    assert text == f"   {LISBON}"
    *_, source, why, text = cmt("ask", "-v", "Where did the museum move?").stdout.splitlines()
    assert source == "1. trip.md[0:35]"
    assert re.fullmatch(
        r"   match 1, score 1\.0000, meaning #1 \(cosine 0\.\d\d\), words #1 \(BM25 .+\)", why
    )
    assert text == f"   {LISBON}"


def test_adding_again_skips_and_updates(cmt, tmp_path):
    """A folder is taken with all beneath it; what is unchanged is skipped, what has changed is
    updated.
    """
    (tmp_path / "notes" / "deep").mkdir(parents=True)
    (tmp_path / "notes" / "a.md").write_text(LISBON)
    (tmp_path / "notes" / "deep" / "b.txt").write_text("Ann likes tea.")
    (tmp_path / "notes" / ".hidden.md").write_text("not this")
    assert cmt("add", tmp_path / "notes").stdout == "2 added, 0 updated, 0 unchanged\n"
    (tmp_path / "notes" / "a.md").write_text(PORTO)
    assert cmt("add", tmp_path / "notes").stdout == "0 added, 1 updated, 1 unchanged\n"
    assert cmt("ask", "Where did the museum move?").stdout.startswith(PORTO)


def test_globs_are_expanded_by_the_command(cmt, tmp_path, monkeypatch):
    """A quoted pattern works, also across folders; a file named twice is one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    for name in ("a.md", "b.txt", "deep/c.md"):
        (tmp_path / name).write_text(f"This is {name}.")
    assert cmt("add", "**/*.md", "a.md").stdout == "2 added, 0 updated, 0 unchanged\n"


def test_a_named_file_is_read_whatever_its_name(cmt, tmp_path):
    """Brackets in a name are no pattern when the file is there."""
    (tmp_path / "note[1].md").write_text(LISBON)
    assert cmt("add", tmp_path / "note[1].md").stdout == "1 added, 0 updated, 0 unchanged\n"


def test_standard_input_and_typed_metadata(cmt):
    """Text comes through a pipe; metadata keeps its types and can be filtered by."""
    cmt(
        "add",
        "-",
        "--source",
        "car",
        "--meta",
        "year=2026",
        "--meta",
        "paid=true",
        "--meta",
        'code="7"',
        stdin=LISBON,
    )
    cmt(
        "add",
        "--text",
        PORTO,
        "--meta",
        "year=2019",
        "--meta",
        "left=NaN",
        "--meta",
        "list=[1]",
        "--meta",
        "a=b=c",
    )
    newer, older = (
        cmt.json("list", "--where", "year>=2020"),
        cmt.json("list", "--where", "year<2020"),
    )
    assert (newer["source"], newer["metadata"]) == (
        "car",
        {"year": 2026, "paid": True, "code": "7"},
    )
    assert older["metadata"] == {"year": 2019, "left": "NaN", "list": "[1]", "a": "b=c"}
    assert len(cmt("list", "--where", "year=[2019, 2026]").stdout.splitlines()) == 2
    assert len(cmt("list", "--where", "year!=2019").stdout.splitlines()) == 1


def test_scope_and_expiry(cmt):
    """A scope holds what is beneath it; a time without a zone is UTC."""
    cmt("add", "--text", LISBON, "--scope", "user/ann", "--expires", "2999-01-31")
    document = cmt.json("list", "--scope", "user")
    assert (document["scope"], document["expires_at"]) == ("user/ann", "2999-01-31T00:00:00+00:00")
    assert cmt("list", "--scope", "user/bob").stdout == ""


def test_text_can_wait_for_its_compression(cmt):
    """What waits is told, found by words, and compressed on demand."""
    assert (
        cmt("add", "--text", LISBON, "--no-wait").stdout
        == "1 added, 0 updated, 0 unchanged; 1 passage will be compressed later\n"
    )
    assert "version 1, pending\n" in cmt("show", ids(cmt)[0]).stdout
    assert "Lisbon" in cmt("search", "--mode", "text", "museum Lisbon", "-k", "1").stdout
    assert cmt.json("stats")["pending"] == 1
    assert cmt("compress").stdout == "1 passage compressed\n"
    assert cmt.json("stats")["pending"] == 0


def test_adding_compresses_what_earlier_runs_have_left(cmt):
    """One `cmt add` later nothing waits."""
    cmt("add", "--text", LISBON, "--no-wait")
    said = cmt("add", "--text", PORTO).stdout
    assert said == "1 added, 0 updated, 0 unchanged; 1 passage of earlier runs compressed\n"
    assert cmt.json("stats")["pending"] == 0


def test_a_question_can_be_piped_in(cmt):
    """Without an argument, or as "-"."""
    cmt("add", "--text", LISBON)
    assert cmt("ask", stdin="Where did the museum move?\n").stdout.startswith(LISBON)
    assert cmt("ask", "-", stdin="Where did the museum move?\n").stdout.startswith(LISBON)


def test_a_question_that_nothing_can_answer(cmt):
    """A filter that no document fits is told as it was written, and so is an empty memory."""
    cmt("create")
    assert cmt("ask", "Where?").stderr == "the memory is empty\n"
    cmt("add", "--text", LISBON, "--scope", "user/ann", "--meta", "year=2019")
    chosen = [
        "--scope",
        "user/bob",
        "--source",
        "*.md",
        "--where",
        "year>=2020",
        "--where",
        "by=Ann",
        "--where",
        "n=[1,2]",
    ]
    said = cmt("ask", "Where did the museum move?", *chosen)
    told = (
        'no document fits --scope user/bob --source *.md --where year>=2020 --where by="Ann"'
        " --where n=[1, 2]\n"
    )
    assert (said.stdout, said.stderr) == ("I don't know.\n", told)
    assert cmt("ask", "Where did the museum move?", "--scope", "user/").stdout.startswith(LISBON)
    assert "confidence" in cmt("ask", "Why?", "--reader", "none").stdout


def test_json_answers_have_everything(cmt):
    """One document on stdout: text, sources, costs."""
    cmt("add", "--text", LISBON)
    said = cmt.json("ask", "Where did the museum move?")
    assert (said["text"], said["reader"], said["abstained"]) == (LISBON, "memory", False)
    assert (said["sources"][0]["start"], said["sources"][0]["end"]) == (0, 35)
    assert {"confidence", "prompt_tokens", "memory_tokens", "answer_tokens"} < set(said)
    assert set(said["milliseconds"]) == {"encode", "search", "load", "prefill", "decode"}


def test_options_of_a_question_reach_the_model(cmt):
    """Reader, budget, length and filters."""
    cmt("add", "--text", LISBON, "--scope", "a")
    cmt("add", "--text", PORTO, "--scope", "b")
    said = cmt.json(
        "ask", "Where did the museum move?", "--scope", "b", "--reader", "text", "--max-tokens", 3
    )
    assert (said["text"], said["reader"]) == ("The museum moved", "text")
    assert len(cmt.json("ask", "Where did the museum move?", "--budget", 1)["sources"]) == 1
    assert len(cmt.json("ask", "Where did the museum move?", "-k", 1)["sources"]) == 1
    assert len(cmt.json("ask", "Where did the museum move?", "-k", 99)["sources"]) == 2
    assert cmt.json("ask", "Where did the museum move?", "--reader", "none")["sources"] == []


def test_search_tells_where_and_why(cmt):
    """As text and as JSON, which leaves the documents' whole texts out."""
    cmt("add", "--text", LISBON, "--source", "trip.md")
    assert cmt("search", "museum").stdout == f"1. trip.md\n   {LISBON}\n"
    place, why, _ = cmt("search", "-v", "museum").stdout.splitlines()
    assert place == "1. trip.md[0:35]"
    assert why.startswith("   score 1.0000, meaning #1 (cosine")
    (match,) = cmt.json("search", "museum", "--mode", "text")
    assert (match["passage"]["text"], match["document"]["source"], match["vector_rank"]) == (
        LISBON,
        "trip.md",
        None,
    )
    assert match["why"].startswith("words #1")
    assert "text" not in match["document"]
    nothing = cmt("search", "xylophone", "--mode", "text")
    assert (nothing.stdout, nothing.stderr) == ("", "nothing found\n")


def test_list_has_pages(cmt):
    """The oldest come first; what is left out is told, on stderr."""
    for number in range(3):
        cmt("add", "--text", f"Fact {number}.", "--no-wait")
    first = cmt("list", "--limit", 2)
    assert [line.split("\t")[-1] for line in first.stdout.splitlines()] == ["Fact 0.", "Fact 1."]
    assert first.stderr == "2 of 3; --all lists the rest\n"
    assert len(cmt("list", "--all").stdout.splitlines()) == 3


def test_show_update_rm(cmt):
    """The first four characters of an id name a document."""
    cmt("add", "--text", LISBON, "--source", "trip.md")
    (whole,) = ids(cmt)
    assert cmt("update", whole[:4], "--text", PORTO).stdout == f"{whole[:8]} is version 2\n"
    shown = cmt("show", whole[:6], "--history").stdout
    assert f"{whole}  version 1, superseded\n" in shown
    assert f"{whole}  version 2, compressed\nsource: trip.md\n" in shown
    assert shown.index(LISBON) < shown.index(PORTO)
    assert LISBON not in cmt("show", whole).stdout
    assert cmt("rm", whole[:4], whole).stdout == "1 document removed\n"
    assert cmt("list").stdout == ""


def test_show_lists_passages(cmt):
    """Where each begins and ends, how long it is, and whether it is compressed."""
    cmt("config", "set", "passage_tokens", 16)
    cmt("add", "--text", " ".join([LISBON, PORTO, LISBON]))
    lines = cmt("show", ids(cmt)[0]).stdout.splitlines()
    assert [line.split("\t")[1:] for line in lines[-2:]] == [
        ["0:70", "14", "compressed", ""],
        ["71:106", "7", "compressed", ""],
    ]
    shown = cmt.json("show", ids(cmt)[0])
    assert [v["version"] for v in shown["versions"]] == [1]
    assert [(p["start"], p["end"], p["ready"]) for p in shown["passages"]] == [
        (0, 70, True),
        (71, 106, True),
    ]


def test_show_tells_the_fidelity_that_was_measured(cmt):
    """Beside the state, to two places for people and in full for programs; nothing where it was not
    measured.
    """
    cmt("add", "--text", LISBON)
    whole = cmt.json("list")["id"]
    assert cmt.json("show", whole)["passages"][0]["fidelity"] is None
    with open_fake(cmt.home / "default") as memory:
        (passage,) = memory.passages(whole)
        made = CompressedPassage("fake", 7, {"bytes": np.zeros(7, np.uint8)})
        memory._store.save(
            {passage.id: Encoded(made, np.eye(1, 64)[0], 0.876)},
            FINGERPRINT,
        )
    assert (
        cmt("show", whole).stdout.splitlines()[-1]
        == f"{passage.id}\t0:35\t7\tcompressed, fidelity 0.88\t"
    )
    assert cmt.json("show", whole)["passages"][0]["fidelity"] == 0.876


def test_update_changes_fields_in_place(cmt, tmp_path):
    """Without a text the version stays; a key of the metadata is set, or with null taken out."""
    cmt("add", "--text", LISBON, "--meta", "year=2019", "--meta", "draft=true")
    (whole,) = ids(cmt)
    assert (
        cmt("update", whole, "--meta", "a=b", "--meta", "c=null").stdout
        == f'{whole[:8]} is version 1, a="b", without c\n'
    )
    changed = cmt.json(
        "update",
        whole,
        "--source",
        "trip.md",
        "--meta",
        "a=null",
        "--meta",
        "draft=null",
        "--meta",
        "seen=1",
    )
    assert (changed["version"], changed["source"], changed["metadata"]) == (
        1,
        "trip.md",
        {"year": 2019, "seen": 1},
    )
    (tmp_path / "new.md").write_text(PORTO)
    assert cmt.json("update", whole, tmp_path / "new.md")["text"] == PORTO
    assert cmt.json("update", whole, "-", stdin=LISBON)["version"] == 3


def test_forget_prints_a_receipt(cmt):
    """Documents, versions, files, and no trace left."""
    cmt("add", "--text", "The word is zanzibarquartz.", "--source", "secret.md")
    receipt = cmt.json("forget", "--source", "*.md", "--yes")
    assert (receipt["versions"], receipt["traces_found"]) == (1, 0)
    assert "memory.db" in receipt["files_scanned"]
    files = [f for f in cmt.home.rglob("*") if f.is_file()]
    assert not any(b"zanzibarquartz" in f.read_bytes() for f in files)


def test_forget_asks_first(cmt):
    """What would go is shown; only a yes erases it."""
    cmt("add", "--text", LISBON, "--source", "trip.md")
    asked = cmt("forget", "--source", "trip.md", stdin="n\n", code=1)
    assert (
        "trip.md  The museum moved to Lisbon in 2019.\nErase 1 document for good? [y/N]"
        in asked.stderr
    )
    assert "there was no answer" in cmt("forget", "--source", "trip.md", stdin="", code=1).stderr
    assert len(ids(cmt)) == 1
    erased = cmt("forget", ids(cmt)[0][:4], stdin="y\n").stdout
    assert erased.startswith("1 document erased (1 version, 1 passage)\n")
    assert "no trace left in memory.db" in erased
    assert ids(cmt) == []


def test_a_source_is_named_as_it_is_shown(cmt, tmp_path, monkeypatch):
    """Beneath the current folder by its relative path, though it is stored whole; the file may be
    gone.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    for name in ("deep/a.md", "deep/b.md"):
        (tmp_path / name).write_text(f"The museum of {name}.")
    cmt("add", "deep")
    (tmp_path / "deep" / "a.md").unlink()
    shown = [line.split("\t")[1] for line in cmt("list").stdout.splitlines()]
    assert shown == ["deep/a.md", "deep/b.md"]
    assert [
        s["source"] for s in cmt.json("ask", "Which museum?", "--source", "deep/b.md")["sources"]
    ] == [f"{tmp_path}/deep/b.md"]
    assert len(cmt.json("search", "museum", "--source", "deep/*.md")) == 2
    assert len(cmt.json("search", "museum", "--source", "*/b.md")) == 1
    assert len(cmt.json("forget", "--source", shown[0], "--yes")["documents"]) == 1
    assert cmt("list", "--source", "./deep/../deep/b.md").stdout.split("\t")[1] == "deep/b.md"


def test_forget_fails_when_traces_are_left(cmt):
    """The receipt is printed all the same."""
    cmt("add", "--text", "The word is zanzibarquartz.", "--source", "secret.md")
    (cmt.home / "default" / "copy.txt").write_text("zanzibarquartz")
    receipt = json.loads(cmt("forget", "--source", "secret.md", "--yes", "--json", code=1).stdout)
    assert receipt["traces_found"] > 0


def test_forget_what_nobody_remembers_is_an_error(cmt):
    """A mistyped source is not taken for success."""
    cmt("add", "--text", LISBON, "--source", "trip.md")
    assert "no document fits" in cmt("forget", "--source", "trap.md", "--yes", code=3).stderr


def test_check_says_what_is_wrong(cmt, model_folder):
    """With the command that mends it, and an exit code."""
    cmt("config", "set", "model", model_folder)
    cmt("add", "--text", LISBON, "--no-wait")
    told = cmt("check").stdout  # what waits is nothing wrong: it is told with its command
    assert "ok\tcompression\t1 passages are pending\tcmt compress" in told
    assert "WRONG" not in told
    cmt("config", "set", "model", "nobody/nothing")
    found = {f["check"]: f for f in json.loads(cmt("check", "--json", code=1).stdout)}
    assert (found["model"]["ok"], found["model"]["remedy"]) == (
        False,
        "cmt model pull nobody/nothing",
    )


@pytest.mark.parametrize("options", [[], ["--overwrite"]], ids=["", "overwrite"])
def test_export_replaces_archives_alone(cmt, tmp_path, options):
    """A folder is no file; another file, a zip file too, stays as it is; an empty one and half an
    archive give way.
    """
    cmt("add", "--text", LISBON)
    assert (
        f"{tmp_path} is a folder: give the name of a file in it"
        in cmt("export", tmp_path, *options, code=2).stderr
    )
    with zipfile.ZipFile(tmp_path / "letter.docx", "w") as letter:
        letter.writestr("word/document.xml", "<w/>")
    (tmp_path / "notes.md").write_text("The oil was changed.", "utf-8")
    (tmp_path / "letter.cmt").write_bytes((tmp_path / "letter.docx").read_bytes())
    for name in ("letter.docx", "notes.md", "letter.cmt"):
        before = (tmp_path / name).read_bytes()
        assert (
            "is no archive of a memory, so it is not replaced"
            in cmt("export", tmp_path / name, *options, code=1).stderr
        )
        assert (tmp_path / name).read_bytes() == before
    if options:
        file = tmp_path / "all.cmt"
        cmt("export", file)
        for content in (file.read_bytes()[:100], b"", file.read_bytes()):
            file.write_bytes(content)
            cmt("export", file, *options)
            assert zipfile.is_zipfile(file)


def test_export_and_import(cmt, tmp_path):
    """A memory goes through one file; the file is not overwritten unasked."""
    cmt("add", "--text", LISBON)
    file = tmp_path / "backup.cmt"
    assert cmt("export", file).stdout == f"1 document in {file}\n"
    assert "overwrite" in cmt("export", file, code=1).stderr
    assert cmt.json("export", file, "--overwrite")["bytes"] == file.stat().st_size
    told = cmt("import", file, "-m", "restored").stdout
    assert told.startswith(
        "1 added, 0 updated, 0 unchanged\ncompressed passages: 1 taken from the archive, 0 made again"
    )
    assert cmt("ask", "-m", "restored", "Where did the museum move?").stdout.startswith(LISBON)


def test_reindex_and_reencode(cmt):
    """Both say what they did; reencoding with the same model has nothing to do."""
    cmt("add", "--text", LISBON)
    assert cmt("reindex").stdout == "exact, 1 vectors\n"
    assert cmt("reencode").stdout == "0 passages encoded again\n"


def test_chat_takes_lines_from_a_pipe(cmt):
    """A conversation ends with its input; a command that is none explains those there are."""
    cmt("add", "--text", LISBON)
    said = cmt(
        "chat",
        stdin=(
            "/sources\nWhere did the museum move?\n\n/sources\n/what\n/clear\n/help\n/exit\nnever"
            " read\n"
        ),
    )
    answer, sure, source, _ = said.stdout.splitlines()
    assert re.fullmatch(r"confidence [01]\.\d\d, read from memory", sure)
    assert answer == LISBON
    assert re.fullmatch("[0-9a-f]{8}", source)
    complaint, unknown, explained = said.stderr.splitlines()
    assert complaint == "there was no answer yet"
    assert unknown == f"/what is not a command. {explained}"
    assert "/clear" in explained


def test_chat_remembers_in_its_scope(cmt):
    """What the user says is added where it was asked to be; earlier memories of the scope
    answer.
    """
    cmt("chat", "--remember", "--scope", "user/ann", stdin="Ann drinks green tea.\n")
    remembered = cmt.json("list")
    assert (remembered["text"], remembered["scope"], remembered["source"]) == (
        "Ann drinks green tea.",
        "user/ann",
        "chat",
    )
    said = cmt("chat", "--scope", "user/ann", "--json", stdin="What tea does Ann drink?\n")
    assert json.loads(said.stdout)["text"] == "Ann drinks green tea."


def test_config_shows_and_sets(cmt):
    """A setting is recorded for the memory, in its type; what it does not change by itself is
    told.
    """
    assert cmt.json("config")["places"]["exists"] is False
    assert not cmt.home.exists()
    assert cmt("config", "set", "compression", "2").stderr == ""
    cmt("add", "--text", LISBON)
    told = "passages compressed with another value: `cmt reencode` re-encodes them\n"
    assert cmt("config", "set", "compression", "2.5").stderr == told
    assert cmt("config", "set", "compression", "2.5").stderr == ""
    assert cmt("config", "set", "codec", "4bit").stderr == told
    assert cmt("config", "set", "rerank", "0").stderr == ""
    config = cmt.json("config")
    assert (config["settings"]["compression"], config["settings"]["rerank"]) == (2.5, 0)
    assert config["places"]["memory"] == str(cmt.home / "default")
    assert f"data_dir\t{cmt.home}\n" in cmt("config").stdout


def test_a_relative_folder_is_recorded_whole(cmt, tmp_path, monkeypatch, model_folder):
    """An adapter or a model that was set in one folder is found from any other."""
    monkeypatch.chdir(tmp_path)
    adapter = tmp_path / "mine"
    adapter.mkdir()
    (adapter / "cmt-adapter.json").write_text("{}")
    assert cmt("config", "set", "adapter", "mine").stdout == f"adapter = {adapter}\n"
    assert cmt("config", "set", "model", model_folder.name).stdout == f"model = {model_folder}\n"
    monkeypatch.chdir("/")
    assert "\nok\tadapter\t" in cmt("check").stdout
    (adapter / "cmt-adapter.json").unlink()
    found = {f["check"]: f for f in json.loads(cmt("check", "--json", code=1).stdout)}
    assert found["adapter"]["detail"].startswith(f"adapter {adapter}: this folder holds no adapter")
    assert cmt("config", "set", "adapter", "none").stdout == "adapter = none\n"


def test_settings_that_cannot_work(cmt, tmp_path, monkeypatch):
    """What nothing here is called is refused; what may come is recorded, with a warning that says
    how.
    """
    monkeypatch.chdir(tmp_path)
    refused = cmt("config", "set", "adapter", "nosuch", code=2).stderr
    assert f"adapter {tmp_path / 'nosuch'}: this folder holds no adapter" in refused
    for name in ("123", "", "no/such/folder", "nowhere.gguf"):
        assert "there is no such model here" in cmt("config", "set", "model", name, code=2).stderr
    assert not cmt.home.exists()
    told = cmt("config", "set", "model", "nobody/nothing").stderr
    assert (
        told == "warning: model 'nobody/nothing' is not here yet: cmt model pull nobody/nothing\n"
    )
    for has, told in (
        (False, "warning: device 'cuda:1': this torch or this machine has no CUDA; auto"),
        (True, ""),
    ):
        monkeypatch.setattr("cmt_cli.local_model.has_cuda", lambda has=has: has)
        said = cmt("config", "set", "device", "cuda:1").stderr
        assert said.startswith(told)
        assert bool(said) is not has
    assert cmt("config", "set", "device", "cpu").stderr == ""


def test_cuda_is_looked_for_without_torch():
    """Importing it would take seconds."""
    looked = (
        "import sys; from cmt_cli.local_model import has_cuda; has_cuda(); sys.exit('torch' in"
        " sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", looked], check=False).returncode == 0


def test_a_setting_that_is_on_or_off(cmt):
    """On with true, off with false, however they are written; nothing else is taken."""
    for text, value in (("true", True), ("False", False)):
        cmt("config", "set", "fidelity", text)
        assert cmt.json("config")["settings"]["fidelity"] is value
    cmt("config", "set", "fidelity", "perhaps", code=2)


def test_config_of_a_named_memory(cmt):
    """-m counts before and after `set`; the nearer one wins."""
    cmt("config", "-m", "work", "set", "compression", "2")
    cmt("config", "-m", "work", "set", "compression", "3", "-m", "play")
    assert cmt.json("config", "-m", "work")["settings"]["compression"] == 2
    assert cmt.json("config", "-m", "play")["settings"]["compression"] == 3
    assert not (cmt.home / "default").exists()


def test_models(cmt, model_folder):
    """What is there is listed and shown; a folder of one's own is not removed."""
    assert "cmt model pull" in cmt("model", "list").stderr
    assert cmt.json("model", "list") == []
    assert cmt.json("model", "show", model_folder)["architecture"] == "LlamaForCausalLM"
    assert f"path\t{model_folder}\n" in cmt("model", "show", model_folder).stdout
    assert cmt("model", "pull", model_folder).stdout == f"{model_folder}: 0 MB in {model_folder}\n"
    assert "delete it yourself" in cmt("model", "remove", model_folder, code=2).stderr


def test_memories_have_names_and_paths(cmt, tmp_path, monkeypatch):
    """-m, the environment, or the default one."""
    cmt("add", "--text", LISBON, "-m", "work")
    cmt("add", "--text", PORTO, "-m", tmp_path / "elsewhere")
    monkeypatch.setenv("CMT_MEMORY", "work")
    assert LISBON in cmt("list").stdout
    assert PORTO in cmt("list", "-m", tmp_path / "elsewhere").stdout
    assert sorted(p.name for p in cmt.home.iterdir()) == ["work"]


def test_ids_that_users_chose_are_shown_in_full(cmt):
    """Only generated ones are cut: the beginning of a chosen one may name several documents."""
    with open_fake(cmt.home / "default") as memory:
        memory.add(LISBON, id="invoice-2019-a")
        memory.add(PORTO, id="invoice-2019-b")
    assert [line.split("\t")[0] for line in cmt("list").stdout.splitlines()] == [
        "invoice-2019-a",
        "invoice-2019-b",
    ]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(cmt, shell):
    """For each shell that is named."""
    assert "_CMT_COMPLETE" in cmt("completion", shell).stdout


def test_the_shell_completes_commands_and_options():
    """What the script asks for is answered without running anything."""
    asked = {"_CMT_COMPLETE": "bash_complete", "COMP_WORDS": "cmt re", "COMP_CWORD": "1"}
    assert (
        CliRunner().invoke(main, [], env=asked, prog_name="cmt").stdout
        == "plain,reencode\nplain,reindex\n"
    )
    asked |= {"COMP_WORDS": "cmt ask --reader m", "COMP_CWORD": "3"}
    assert CliRunner().invoke(main, [], env=asked, prog_name="cmt").stdout == "plain,memory\n"


@pytest.mark.parametrize(
    "name",
    [*sorted(COMMANDS), "config set", "model pull", "model list", "model show", "model remove"],
)
def test_every_command_helps_with_an_example(cmt, name):
    """`--help` works on each command and shows an example."""
    assert "Example:\n    cmt" in cmt(*name.split(), "--help").stdout


def test_help_tells_the_exit_codes_and_the_version(cmt):
    """What a script needs."""
    assert "\n  Exit codes:\n    0    success\n" in cmt("--help").stdout
    assert re.fullmatch(r"cmt, version \d+\.\d+\.\d+\S*\n", cmt("--version").stdout)
