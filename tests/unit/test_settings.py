"""Settings: one dial for every method, refusals of what a method does not use, what earlier releases
recorded.
"""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from cmt_sdk.config import recorded as recording
from cmt_sdk.config.methods import find_method
from cmt_sdk.config.settings import Settings, SettingsFields
from cmt_sdk.errors import InvalidSetting
from cmt_sdk.memory.assembly import _settings
from cmt_sdk.storage.store import SQLiteStore
from cmt_sdk.types import Fingerprint
from cmt_sdk.weights.bundle import Bundle
from tests.unit.conftest import open_fake

EARLIER = {
    "model": "smollm2-135m-instruct",
    "compressor": "kv",
    "keep": 0.25,
    "keep_at_least": 32,
    "compression": 4,
    "aggregation": "concat",
    "rerank": -1,
}


def test_keyword_arguments_are_the_settings():
    """`SettingsFields`, which editors complete, has the names and types of `Settings`."""
    assert get_type_hints(SettingsFields) == {
        f.name: get_type_hints(Settings)[f.name] for f in fields(Settings)
    }


@pytest.mark.parametrize(
    ("compression", "keep"), [(4, 0.25), (2, 0.5), (1, 1.0), (8, 0.125), (100, 0.01)]
)
def test_compression_is_source_tokens_per_entry(compression, keep):
    """With 4 a quarter of the entries is kept."""
    assert Settings(compression=compression).keep == keep


@pytest.mark.parametrize("hundredths", range(1, 101))
def test_earlier_shares_keep_their_value(hundredths):
    """A memory made with keep=0.5 opens as compression 2; its share, and so the id of its
    fingerprint, stays.
    """
    keep = hundredths / 100
    settings = Settings.checked(Settings.from_recorded({**EARLIER, "keep": keep}))
    assert settings.keep == keep
    assert settings.compression == pytest.approx(1 / keep)
    assert settings.rerank is None


def test_an_earlier_compression_of_soft_stays():
    """What "soft" did not use is dropped: it could be anything."""
    earlier = {
        **EARLIER,
        "compressor": "soft",
        "compression": 16,
        "keep_at_least": 7,
        "aggregation": "cmt",
    }
    settings = Settings.checked(Settings.from_recorded({**earlier, "rerank": 10}))
    assert settings == Settings(compressor="soft", compression=16, aggregation="cmt")
    assert settings.rerank_depth == 0


def test_recorded_settings_of_today_stay_as_they_are():
    """Only the settings with `keep` are those of an earlier release."""
    today = {"compressor": "kv", "compression": 2.5, "rerank": None}
    assert Settings.from_recorded(today) == today


@pytest.mark.parametrize("compressor", ["kv", "soft"])
def test_a_codec_that_was_the_default_once_is_no_obstacle(compressor):
    """Every memory recorded codec="4bit", which holds for "kv" alone: "soft" opens, and a memory
    can change to it. Asked for, it is refused.
    """
    recorded = {**asdict(Settings()), "compressor": compressor, "codec": "4bit"}
    assert recording.asked(recorded, {}).codec == ("4bit" if compressor == "kv" else "auto")
    changed = recording.asked(recorded, {"compressor": "soft", "rerank": 0})
    assert changed == Settings(compressor="soft", rerank=0)
    with pytest.raises(InvalidSetting, match="codec='4bit': only compressor='kv'"):
        recording.asked(recorded, {"compressor": "soft", "codec": "4bit"})


def test_a_memory_of_earlier_settings_opens(tmp_path):
    """As the compression that its share is; a change records it so."""
    with open_fake(tmp_path / "notes") as memory:
        memory._store.set_settings({**EARLIER, "keep": 0.5})
    with open_fake(tmp_path / "notes") as memory:
        assert memory.settings.compression == 2
        memory.configure(rerank=3)
        assert memory._store.settings()["compression"] == 2
        assert "keep" not in memory._store.settings()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"compressor": "soft", "keep_at_least": 64},
            (
                "keep_at_least=64: only compressor='kv' keeps entries of the KV cache; choose that too,"
                " or keep_at_least=32"
            ),
        ),
        (
            {"compressor": "soft", "fidelity": True},
            (
                "fidelity=True: only the passages of compressor='kv' are measured; choose that too, or"
                " fidelity=False"
            ),
        ),
        (
            {"aggregation": "cmt"},
            (
                "aggregation='cmt': it gathers the passages of compressor='soft'; choose that too, or"
                " aggregation='concat'"
            ),
        ),
        (
            {"compressor": "soft", "aggregation": "cmt", "rerank": 5},
            (
                "rerank=5: gathered passages cannot be read one by one; choose rerank=None, or"
                " aggregation='concat'"
            ),
        ),
        (
            {"compressor": "soft", "compression": 2},
            "compression=2: choose one of 4, 8, 16",
        ),
        ({"compression": 0.5}, "compression=0.5: choose a number from 1 to 100"),
        ({"rerank": -1}, "rerank=-1: choose a number from 0 to 50"),
    ],
)
def test_a_setting_that_the_method_does_not_use_is_refused(given, message):
    """With the remedy; nothing is ignored in silence."""
    with pytest.raises(InvalidSetting, match=f"^{re.escape(message)}$"):
        Settings(**given)


def test_a_misspelt_name_is_refused_with_the_nearest_and_all_others():
    """In `open` and in `configure`."""
    names = ", ".join(Settings.names())
    message = f"there is no setting 'modle'; did you mean 'model'? There are {names}"
    with pytest.raises(InvalidSetting, match=f"^{re.escape(message)}$"):
        Settings.checked({"modle": "x"})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("compression", "8", 8),
        ("compression", "2.5", 2.5),
        ("rerank", "3", 3),
        ("rerank", "default", None),
        ("compression", "default", None),
        ("keep_at_least", "default", 32),
        ("fidelity", "True", True),
        ("memory_budget", "2_000_000", 2_000_000),
        ("model", "org/name_1", "org/name_1"),
    ],
)
def test_a_text_is_read_in_the_type_of_its_setting(name, text, value):
    """As on a command line."""
    parsed: Any = Settings.parse(name, text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("compression", "much", "compression='much': choose a number"),
        ("rerank", "2.5", "rerank='2.5': choose a whole number"),
        ("colour", "red", "there is no setting 'colour'; there are model, "),
    ],
)
def test_a_text_that_is_no_value_is_refused(name, text, message):
    """With what would do."""
    with pytest.raises(InvalidSetting, match=f"^{re.escape(message)}"):
        Settings.parse(name, text)


def test_the_memory_of_commit_7c39732_keeps_its_settings_and_fingerprint():
    """Its recorded settings are today's defaults of a model with adapters, and its share kept has the
    id that it had.
    """
    file = Path(__file__).parents[1] / "reliability" / "stores" / "7c39732" / "notes" / "memory.db"
    with closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as db:
        (recorded,) = db.execute("SELECT value FROM settings WHERE name = 'settings'").fetchone()
        (name, made_by) = db.execute("SELECT * FROM fingerprints").fetchone()
    settings = Settings.checked(Settings.from_recorded(json.loads(recorded)))
    assert settings == Settings(compression=4)
    assert Fingerprint(**{**json.loads(made_by), "keep": settings.keep}).id == name


def test_a_compression_that_nobody_chose_is_the_methods_own():
    """A third, as with adapters, until a memory knows its model."""
    assert (Settings().compression, Settings().keep) == (None, 0.333333333333)
    assert Settings(compressor="soft").tokens_per_entry == 4


def test_the_compression_fits_the_adapters():
    """Two thirds of the entries where no encoder was trained to make fewer suffice, with a reader or not;
    `soft` has no such choice.
    """
    reader = Bundle(base="b", reader=Path("reader"))
    both = Bundle(base="b", reader=Path("reader"), encoder=Path("encoder"))
    kv, soft = find_method("kv"), find_method("soft")
    assert [b.default_compression(kv) for b in (both, reader, Bundle())] == [3, 1.5, 1.5]
    assert [b.default_compression(soft) for b in (both, reader, Bundle())] == [4, 4, 4]


class ModelOf:
    """Stands for the look-up of a model's adapters: says what fits, and is asked how often."""

    def __init__(self, fits: float | None) -> None:
        self.fits, self.asked = fits, 0

    def __call__(self, settings: Settings) -> float | None:
        """The compression that fits."""
        self.asked += 1
        return self.fits


@pytest.fixture
def store(tmp_path):
    with closing(SQLiteStore(tmp_path / "notes", create=True)) as made:
        yield made


def test_a_fitted_compression_is_recorded_and_stays(store):
    """Adapters that appear later do not change a memory's ways."""
    assert _settings(store, {}, ModelOf(2)).compression == 2
    later = ModelOf(4)
    assert _settings(store, {}, later).compression == 2
    assert later.asked == 0


def test_another_model_gets_a_compression_of_its_own(store):
    """For one opening, or for good once it is recorded."""
    _settings(store, {}, ModelOf(4))
    assert _settings(store, {"model": "org/name"}, ModelOf(2)).compression == 2
    assert _settings(store, {}, ModelOf(None)).compression == 4
    store.set_settings({**store.settings(), "model": "org/name"})
    assert _settings(store, {}, ModelOf(2)).compression == 2
    assert _settings(store, {}, ModelOf(None)).compression == 2


def test_an_explicit_compression_always_wins(store):
    """When the memory is made, in one opening, and after a change of the model."""
    assert _settings(store, {"compression": 8}, ModelOf(2)).compression == 8
    assert _settings(store, {"compression": 3}, ModelOf(2)).compression == 3
    assert _settings(store, {"model": "org/name"}, ModelOf(2)).compression == 8
    assert "fitted" not in store.settings()


def test_a_model_that_is_not_here_is_fitted_when_it_is(store):
    """Its memory opens all the same."""
    assert _settings(store, {}, ModelOf(None)).compression is None
    assert _settings(store, {}, ModelOf(2)).compression == 2
    assert store.settings()["fitted"]["compression"] == 2


def test_a_changed_setting_keeps_the_fitted_compression(tmp_path):
    """`configure` returns the number; "default" takes an explicit one back."""
    with open_fake(tmp_path / "notes") as memory:
        assert memory.settings.compression == 3
        assert memory.configure(rerank=3).compression == 3
        assert memory.configure(compression=4).compression == 4
        assert memory.configure(compression=None).compression == 3
        assert memory._store.settings()["compression"] is None


def test_a_damaged_record_of_a_fitted_compression_is_made_again(store):
    """It is no error."""
    _settings(store, {}, ModelOf(2))
    store.set_settings({**store.settings(), "fitted": 7})
    assert _settings(store, {}, ModelOf(2)).compression == 2
