"""A second real model, four times as large, with a reader alone: pulled by its name, it reads from
memory what it reads from text.
"""

from __future__ import annotations

import pytest

import cmt_sdk

pytestmark = pytest.mark.model

NAME = "qwen2.5-coder-0.5b-instruct"
NOTES = [
    "The wifi password at the cabin is grizzly-77-lake.",
    "Boiler model: Vaillant ecoTEC 831, serial 2119-0087-33.",
    "Flight BA 1417 leaves Heathrow terminal 5 at 06:25 on 3 December.",
]
PASSAGE = (
    "The lighthouse on Skerry Point was built in 1871 by the engineer Agnes Thorburn, after two"
    " ships of the herring fleet had been lost in the same winter. It is thirty-one metres high and"
    " painted white with a single red band. Until 1963 three keepers lived there with their"
    " families; since then its lamp is switched from the harbour office in Port Marran, and the"
    " keepers' house is a museum, open from April to October. The lens came from Paris and weighs"
    " two tonnes. On clear nights it is seen for twenty-four nautical miles, and local people tell"
    " the weather by whether they can see it from the church hill."
)


@pytest.fixture(scope="module")
def info() -> cmt_sdk.ModelInfo:
    """The model, pulled once and for all."""
    try:
        return cmt_sdk.pull_model(NAME)
    except cmt_sdk.ModelDownload as error:
        pytest.skip(f"no source of {NAME} can be reached: {error}")


@pytest.fixture(scope="module")
def memory(info, tmp_path_factory):
    """A memory of notes and a paragraph, at the default settings."""
    folder = tmp_path_factory.mktemp("second") / "memory"
    with cmt_sdk.open(folder, model=NAME) as opened:
        opened.add_many([*map(cmt_sdk.Document, NOTES), cmt_sdk.Document(PASSAGE)])
        yield opened


def test_it_is_the_pinned_model(info):
    """Its converted weights have one hash, whatever source they came from."""
    assert info.sha256 == "b50e0d6036a50d389d8493b9b0e6a6c1edf60389582025c2bfa70e63af25e78f"
    assert (info.name, info.licence, info.architecture) == (NAME, "Apache-2.0", "Qwen2ForCausalLM")


def test_the_catalogue_has_its_own_sizes(info, memory):
    """And the compression of its memories."""
    (entry,) = [entry for entry in cmt_sdk.catalogue() if entry.name == NAME]
    assert (entry.is_here, entry.disk_bytes) == (True, info.bytes)
    assert memory.settings.compression == entry.compression == 1.5


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is the wifi password at the cabin?", "grizzly-77-lake"),
        ("What is the boiler's serial number?", "2119-0087-33"),
        ("What is the number of the flight from Heathrow?", "1417"),
        ("Who built the lighthouse on Skerry Point?", "Agnes Thorburn"),
        ("How high is the lighthouse?", "thirty-one"),
    ],
)
def test_it_answers_from_memory(memory, question, expected):
    """Names, numbers and codes, from notes and from a paragraph."""
    assert expected.lower() in memory.ask(question, max_tokens=32).text.lower()
