"""The code and the commands on the pages run, and print what the pages show."""

from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Session, blocks, fits, one_model, pages, steps

NOT_RUN = {
    "docs/how-to/agents.md": ["needs another service"],
    "docs/how-to/encryption.md": ["needs a system keyring"],
    "docs/how-to/generator.md": ["needs another service"] * 3,
    "docs/how-to/own-model.md": [
        "fetches a model",
        "fetches a model",
        "needs a second model",
    ],
    "docs/how-to/server.md": [
        "starts a server",
        "needs a running server",
        "starts a server on all interfaces",
    ],
    "docs/how-to/object-storage.md": ["needs a bucket"],
    "docs/postgres.md": ["needs a Postgres server"] * 2,
    "docs/how-to/train.md": ["takes minutes to hours", "needs the adapter"],
}


def test_blocks_that_do_not_run_are_listed_with_a_reason():
    """A new one needs a line here."""
    found = {}
    for page in pages():
        reasons = [block.not_run for block in blocks(page) if block.not_run]
        if reasons:
            found[str(page.relative_to(ROOT))] = reasons
    assert found.keys() == NOT_RUN.keys()
    for page, reasons in found.items():
        assert all(r.startswith(e) for r, e in zip(reasons, NOT_RUN[page], strict=True)), page


def test_no_block_is_missed():
    """What looks like Python or has a prompt is in a block that runs: no indented one."""
    for page in pages():
        if page.name == "cli.md":
            continue
        text = page.read_text(encoding="utf-8")
        assert "\n\n    $ " not in text, page
        assert "\n\n    import " not in text, page
        assert {b.kind for b in blocks(page)} <= {
            "python",
            "console",
            "text",
            "sh",
            "sql",
            "json",
        }, page


def test_dots_stand_for_anything_and_a_score_for_any_score():
    """Other differences count."""
    assert fits("confidence 0.92", "confidence 0.48")
    assert not fits("confidence 0.92", "confidence 1")
    assert fits("1 erased, ... bytes\n", "1 erased, 8,192 bytes  \n")
    assert not fits("1 erased, ... bytes", "2 erased, 8 bytes")
    assert not fits("a", "a\nb")


@pytest.fixture(scope="module")
def model():
    """One engine for all pages."""
    with one_model():
        yield


@pytest.mark.model
@pytest.mark.parametrize(
    "page", [p for p in pages() if any(steps(p))], ids=lambda p: str(p.relative_to(ROOT))
)
def test_the_pages_steps_print_what_they_show(page, model, tmp_path, monkeypatch):
    """In order, with the real model, in an empty folder and an empty home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CMT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("CMT_KEY", raising=False)
    monkeypatch.setenv("CMT_KEY", "")  # so that what a page sets is taken back after it
    monkeypatch.delenv("CMT_KEY")
    session = Session()
    for step in steps(page):
        printed = session.run(step)
        assert step.shown is None or fits(step.shown, printed), (
            f"{step.block}: {step.code}\n--- shown\n{step.shown}\n--- printed\n{printed}"
        )
    assert Path.cwd() == tmp_path
