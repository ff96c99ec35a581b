"""The byte format and the archive reader under inputs that nobody thought of; what is fuzzed stands
in fuzzing.py.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.reliability.fuzzing import (
    TARGETS,
    coded_memories,
    decodes,
    members,
    read,
    seeds,
    zipped,
)

SECONDS = int(os.environ.get("CMT_FUZZ_SECONDS", "300"))  # for each target but the codec
RUNS = int(os.environ.get("CMT_FUZZ_RUNS", "10_000_000"))  # of the codec: half an hour of a core
SEEDS = {target: seeds(target) for target in TARGETS}
FEW = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@st.composite
def mutations(draw, target):
    """A sound input with some of its bytes replaced, cut out, doubled, or its numbers made
    large.
    """
    data = bytearray(draw(st.sampled_from(SEEDS[target])))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 12)))
        data[at:end] = draw(
            st.one_of(
                st.binary(max_size=12),
                st.sampled_from(
                    [
                        b"\xff" * 4,
                        b"\xff" * 8,
                        b"\0" * 8,
                        b"\0\0\0\x80",
                        b"9" * 30,
                        b"[" * 200,
                        b'"',
                        b"{}",
                        b"null",
                        b"-1",
                        b"1e999",
                    ]
                ),
                st.just(bytes(data[at:end]) * 2),
            )
        )
    return bytes(data)


# a member whose embedding has a value that float32 holds and whose square it does not
TOO_LONG = (
    b"\x03\x80\x00\x00\x00\x00\x00\x00\x00"
    b'{"0.key":{"dtype":"F32","shape":[8],"data_offsets":[0,32]},'
    b'"0.memory.bytes":{"dtype":"U8","shape":[4],"data_offsets":[32,36]}}  '
    b"\x00\x00\x80?" + 27 * b"\x00" + b"`\x00\x01\x02\x03"
)


@settings(FEW, max_examples=1_500)
@given(mutations("blob"))
def test_no_bytes_break_the_reader_of_memories(data):
    """A memory whose arrays lie within the bytes, or StorageDamaged or StorageNewer; never anything
    else.
    """
    TARGETS["blob"](data)


@settings(FEW, max_examples=1_500)
@given(mutations("codec"))
def test_no_bytes_break_the_codec(data):
    """Entries that are numbers and as many as the bits say, or StorageDamaged."""
    TARGETS["codec"](data)


@settings(FEW, max_examples=500)
@given(mutations("archive"))
@example(TOO_LONG)
def test_no_bytes_break_the_reader_of_archives(data):
    """The whole file, or one member under a checksum that fits: read to the end, or refused in our
    words.
    """
    TARGETS["archive"](data)


def test_what_mutation_starts_from_is_sound(tmp_path):
    """Otherwise every input would be refused at the first look, and nothing be tried."""
    (tmp_path / "sound.cmt").write_bytes(zipped(members()))
    assert read(tmp_path / "sound.cmt") == 3
    assert [sum(map(decodes, coded_memories(seed))) for seed in SEEDS["codec"]] == [1, 1, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_guided_fuzzing_finds_nothing(target, tmp_path, tally):
    """Atheris mutates towards code not reached yet, for `CMT_FUZZ_SECONDS` (300) each, of the codec
    for `CMT_FUZZ_RUNS` (10 million) inputs; a finding ends it with another code.
    """
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("guided fuzzing needs atheris: pip install atheris (Linux and macOS)")
    command = [
        sys.executable,
        "-m",
        "tests.reliability.fuzzing",
        target,
        str(tmp_path),
        f"-runs={RUNS}" if target == "codec" else f"-max_total_time={SECONDS}",
        f"-artifact_prefix={tmp_path}/",
        "-rss_limit_mb=4096",
    ]
    root = Path(__file__).parents[2]
    limit = 4 * 3600 if target == "codec" else SECONDS + 300
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=False, timeout=limit
    )
    assert done.returncode == 0, done.stderr[-4000:]
    runs = re.search(r"Done (\d+) runs", done.stderr)
    assert runs, done.stderr[-4000:]
    tally(f"fuzzed: {target}", inputs=int(runs[1]), losses=0)
