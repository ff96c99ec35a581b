"""`cmt create --set`: a memory of other settings, made without the default model."""

from __future__ import annotations

import pytest

import cmt_sdk


def test_a_memory_of_another_model_needs_no_default_model(cmt, model_folder, tmp_path, monkeypatch):
    """The model folder is empty; a relative path is recorded as an absolute one."""
    monkeypatch.chdir(tmp_path)
    cmt.opener = cmt_sdk.open
    missing = cmt("create", code=4).stderr
    assert "cmt model pull" in missing
    assert not cmt.home.exists()
    chosen = ["--set", f"model={model_folder.name}", "--set", "compressor=soft"]
    made = cmt.json("create", *chosen, "--set", "compression=8")
    assert made == {"path": str(cmt.home / "default"), "encrypted": False}
    settings = cmt.json("config")["settings"]
    assert (settings["model"], settings["compressor"], settings["compression"]) == (
        str(model_folder),
        "soft",
        8,
    )


def test_config_set_model_makes_a_memory_without_the_default_model(cmt, model_folder):
    """As `cmt create --set` does."""
    cmt.opener = cmt_sdk.open
    cmt("config", "set", "model", model_folder)
    assert cmt.json("config")["settings"]["model"] == str(model_folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["colour=red"], "'colour': choose one of"),
        (["compression"], "'compression': write NAME=VALUE"),
        (["compression=many"], "compression='many': choose a number"),
        (["compression=2", "--set", "compression=4"], "'compression' is given twice"),
        (["adapter=nosuch"], "this folder holds no adapter"),
        (["compressor=soft", "--set", "compression=5"], "choose one of 4, 8, 16"),
    ],
)
def test_settings_that_cannot_be(cmt, arguments, message):
    """Refused before there is a memory."""
    assert message in cmt("create", "--set", *arguments, code=2).stderr
    assert not cmt.home.exists()


def test_a_device_that_is_not_here_is_a_warning(cmt, monkeypatch):
    """The memory is made for another machine."""
    monkeypatch.setattr("cmt_cli.local_model.has_cuda", lambda: False)
    assert "has no CUDA" in cmt("create", "--set", "device=cuda").stderr
    assert cmt.json("config")["settings"]["device"] == "cuda"
