"""What an editor sees: mypy accepts right calls of the public API and refuses wrong ones."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Each line ends with the code of the error that mypy reports there; none where the call is right.
CALLS = """
from __future__ import annotations
from typing import assert_type
import cmt_sdk

memory = cmt_sdk.open("notes", model="org/name", compression=8, rerank=None)
cmt_sdk.open("notes", modle="org/name")  # call-arg
cmt_sdk.open("notes", compression="8")  # arg-type
memory.configure(memory_budget=10)
memory.configure(keep=0.5)  # call-arg

assert_type(memory.ask("q", k=3, scope="user/ann", where={"year": {">=": 2020}}), cmt_sdk.Answer)
assert_type(memory.ask("q", stream=True, history=[cmt_sdk.Turn("user", "x")]), cmt_sdk.Stream)
assert_type(memory.model.ask("q", reader="text", budget=100), cmt_sdk.Answer)
assert_type(memory.model.ask("q", stream=False), cmt_sdk.Answer)
memory.ask("q", scop="user/ann")  # call-overload
memory.ask("q", reader="txt")  # call-overload
memory.model.ask("q", temperature=1)  # call-overload
memory.model.talk("hello", max_tokens="9")  # arg-type

chat = memory.chat(remember=True, scope="user/ann", k=3, reader="auto")
assert_type(chat.say("hello"), cmt_sdk.Answer)
memory.chat(kk=3)  # call-arg
memory.chat(stream=True)  # call-arg

assert_type(memory.update("id", "text", source=None, wait=False), cmt_sdk.Document)
memory.update("id", soruce="x")  # call-arg
memory.update("id", scope=None)  # arg-type

for document in memory.list(scope="user/ann"):
    assert_type(document, cmt_sdk.Document)
memory.search("q", mode="rerank")  # arg-type
assert_type([m.score for m in memory.search("q", per_document=True)], list[float])
try:
    memory.get("id")
except cmt_sdk.DocumentNotFound as error:
    assert_type(error.id, str)
except cmt_sdk.ModelMismatch as mismatch:
    assert_type(mismatch.differences, tuple[str, ...])
"""


# What lies behind the public calls is not followed: it is checked by `make check`.
CONFIG = """
[mypy]
strict = True
follow_imports = silent
disallow_subclassing_any = False
[mypy-torch.*,transformers.*,sqlalchemy.*,cmt_sdk.neural.*,cmt_sdk.storage.*,cmt_sdk.weights.*]
follow_imports = skip
[mypy-cmt_sdk.converting.*,cmt_sdk.archive.*,cmt_sdk.memory.ingestion,cmt_sdk.memory.assembly,cmt_sdk.retrieval.retriever]
follow_imports = skip
[mypy-cmt_sdk.understanding.*,cmt_sdk.text.splitting.*,cmt_sdk.answering.answerer,cmt_sdk.memory.notebook]
follow_imports = skip
"""


def test_right_calls_pass_and_wrong_ones_do_not(tmp_path):
    """One process of mypy over a file of calls, with the package found by its py.typed."""
    (tmp_path / "calls.py").write_text(CALLS)
    (tmp_path / "mypy.ini").write_text(CONFIG)
    assert (ROOT / "cmt_sdk" / "py.typed").exists()
    command = [sys.executable, "-m", "mypy", "--hide-error-context", "--cache-dir=.", "calls.py"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(r"^calls\.py:(\d+): error: .*\[([a-z-]+)\]$", done.stdout, re.MULTILINE)
    expected = [
        (str(number), line.partition("  # ")[2])
        for number, line in enumerate(CALLS.split("\n"), 1)
        if "  # " in line
    ]
    assert list(dict.fromkeys(found)) == expected, done.stdout + done.stderr
