"""A short passage is kept whole, whatever share of the others is kept."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cmt_sdk.config.methods import kept_share
from cmt_sdk.config.settings import Settings
from cmt_sdk.errors import InvalidSetting
from cmt_sdk.testing.fakes import FINGERPRINT, FakeEngine, open_fake
from cmt_sdk.types import Fingerprint

NOTE = "The museum moved to Lisbon."
LONG = "It opens at nine, and closes at five on most days of the year. " * 4


@pytest.fixture(scope="module")
def pack():
    """A function that packs texts with a tiny model: a quarter is kept, and so many tokens at
    least.
    """
    pytest.importorskip("torch")
    from cmt_sdk.neural.methods.kv import KVMethod
    from cmt_sdk.neural.rope import Rotary
    from cmt_sdk.testing.tiny import tiny_frozen

    lm = tiny_frozen()
    return lambda texts, at_least: KVMethod(lm, Rotary(lm.model), 0.25, at_least).compress(texts)


def entries(memory):
    """How many entries a memory keeps, as a mean over its three layers of two heads."""
    return int(np.unpackbits(memory.arrays["kept"], axis=1, count=memory.tokens).sum()) / 6


@pytest.mark.parametrize(
    ("tokens", "at_least", "expected"),
    [
        (20, 32, 20),
        (32, 32, 32),
        (33, 32, 32),
        (100, 32, 32),
        (128, 32, 32),
        (129, 32, 32.25),
        (200, 32, 50),
        (20, 0, 5),
        (1, 32, 1),
    ],
)
def test_so_many_tokens_are_kept(tokens, at_least, expected):
    """The larger of a quarter and the floor, at most all; it never falls as passages grow."""
    assert tokens * kept_share(tokens, 0.25, at_least) == pytest.approx(expected)


def test_a_short_passage_is_kept_whole_and_a_long_one_as_before(pack):
    """Bytes above the floor do not change."""
    short, long = pack([NOTE, LONG], 48)
    assert entries(short) == short.tokens < 48
    before = pack([LONG], 0)[0]
    assert long.nbytes == before.nbytes
    for name, array in before.arrays.items():
        np.testing.assert_array_equal(long.arrays[name], array)


def test_a_passage_between_keeps_the_floor(pack):
    """Those entries that score best."""
    text = LONG[:100]
    (memory,) = pack([text], 48)
    assert memory.tokens > 48
    assert entries(memory) == pytest.approx(48, abs=0.2)


def test_a_short_passage_packs_the_same_alone_and_with_a_long_one(pack):
    """Alone its use is not measured, since nothing of it is left out."""
    (alone,), (together, _) = pack([NOTE], 48), pack([NOTE, LONG], 64)
    np.testing.assert_array_equal(alone.arrays["kept"], together.arrays["kept"])
    assert (alone.arrays["key_codes"] == together.arrays["key_codes"]).mean() > 0.99


def test_memories_of_before_keep_their_id_and_are_read():
    """What was made without a floor has no such field, and is not damaged by that."""
    before = {
        name: getattr(FINGERPRINT, name)
        for name in Fingerprint.__dataclass_fields__
        if name != "keep_at_least"
    }
    made = Fingerprint(**before)
    assert made.id == Fingerprint(**json.loads(json.dumps(before))).id == FINGERPRINT.id
    now = replace(made, keep_at_least=32)
    assert now.id != made.id
    assert made.differences(now) == now.differences(made) == []


def test_reencode_brings_the_floor(tmp_path):
    """Memories of before are read; encoded again, they have the new form."""
    path = tmp_path / "notes"
    with open_fake(path) as memory:
        memory.add(NOTE)
    with open_fake(path, FakeEngine.of(keep_at_least=32)) as memory:
        assert memory.model.ask("Where did the museum move?").text == NOTE
        assert memory._retriever.engine.compressor.compressed == []
        memory.reencode()
        assert memory._retriever.engine.compressor.compressed == [NOTE]


def test_an_archive_of_before_is_taken_in(tmp_path):
    """With its memories, that are not made again."""
    with open_fake(tmp_path / "a") as memory:
        memory.add(NOTE)
        memory.export(tmp_path / "a.cmt")
    engine = FakeEngine.of(keep_at_least=32)
    with open_fake(tmp_path / "b", engine) as memory:
        memory.import_archive(tmp_path / "a.cmt")
        assert memory.model.ask("Where did the museum move?").text == NOTE
    assert engine.compressor.compressed == []


@pytest.mark.parametrize("value", [-1, 5000, True, "many"])
def test_a_floor_out_of_range_is_refused(value):
    """With the range."""
    with pytest.raises(InvalidSetting, match=r"keep_at_least=.*: choose a number from 0 to 4096"):
        Settings(keep_at_least=value)


def test_the_setting_is_shown_and_changed(cmt):
    """As every other one."""
    cmt("add", "--text", NOTE)
    assert "keep_at_least" in cmt("config").stdout
    told = "passages compressed with another value: `cmt reencode` re-encodes them\n"
    assert cmt("config", "set", "keep_at_least", "0").stderr == told
    assert cmt.json("config")["settings"]["keep_at_least"] == 0
