"""Timings side by side in one run: python examples/benchmarks/bench.py --out FILE.

Adding next to a bare forward pass of the model, loading a passage, asking with the memory and the
text reader, decoding, cold and warm starts, one and sixteen clients of a server, search and
forgetting among 100,000 passages, and, where llama-cpp-python is installed, text RAG through
llama.cpp on the same weights. The documents are those of examples/; the 100,000 passages those of
load.py, without a model. A whole run with `--out` adds its medians to history.md: a line a commit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# as the command line does, and before torch comes
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cmt_sdk
from cmt_sdk.retrieval.lru_cache import LRUCache

HERE = Path(__file__).parent
DOCUMENTS, QUESTIONS = HERE.parent / "documents", HERE.parent / "demo_questions.txt"
KS = (1, 8)
ROUNDS = 5
FILES = 4  # documents that are added again and again: some 24 passages
LOADED = 8  # passages that are decoded
DECODINGS = 10  # of each, timed together
CLIENTS = 16
MANY = 100_000  # passages of the large memory
SEARCHED = 60  # questions to it
CMT = [sys.executable, "-m", "cmt_cli.start"]
HISTORY = HERE / "history.md"
KEPT = {  # rows of the table that HISTORY keeps, by the heads of their columns
    "text / memory, k=1": "first token, k=1, text / memory",
    "k=8": "first token, k=8, text / memory",
    "tokens/s": "decoding, memory reader, tokens/s",
    "add / bare": "add / bare forward pass, CPU time",
    "ask cold, s": "`cmt ask`, cold, s",
    "daemon": "`cmt ask`, with a daemon, s",
    "list": "`cmt list`, cold, s",
    "16 clients / 1": f"serving, {CLIENTS} / 1",
    "search of 100,000, ms": f"search, among {MANY:,}, ms",
    "forget, s": f"forget one of {MANY:,}, s",
}


class Rows(list[tuple[str, str]]):
    """The lines of the table, shown as they come."""

    def append(self, row: tuple[str, str]) -> None:
        """One more line."""
        super().append(row)
        print(f"{row[0]}: {row[1]}", flush=True)


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long one call takes."""
    began = clock()
    work()
    return clock() - began


def spread(times: Sequence[float], factor: float = 1000.0) -> str:
    """Median, and in brackets the lowest and the highest."""
    low, high = factor * min(times), factor * max(times)
    digits = 0 if high >= 100 else 2
    median = factor * statistics.median(times)
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def adding(folder: Path, rows: Rows) -> None:
    """CPU time of adding, next to one bare forward pass over the same passages one by one, in turn;
    then all documents are added.
    """
    import torch

    files = sorted(DOCUMENTS.iterdir())
    some = files[:FILES]
    ratios, rates = [], []
    with cmt_sdk.open(folder) as memory:
        memory.add("A first document loads the model: loading is not adding.", scope="warm")
        memory.add_many(some)  # and every part of it runs once
        lm = memory._engine._frozen
        texts = [p.content for d in memory.documents() if d.source for p in memory.passages(d.id)]
        tokens = sum(len(lm.passage_ids(text)) for text in texts)

        def bare() -> None:
            with torch.inference_mode():
                for text in texts:
                    ids = torch.tensor([lm.passage_ids(text)], device=lm.device)
                    lm.model.base_model(input_ids=ids, use_cache=True)

        bare()
        for _ in range(ROUNDS):
            memory.forget(source="*")
            added = seconds(lambda: memory.add_many(some), time.process_time)
            alone = seconds(bare, time.process_time)
            ratios.append(added / alone)
            rates.append(tokens / added)
        rows.append(("add / bare forward pass, CPU time", spread(ratios, 1)))
        rows.append(("add, tokens a second of CPU time", spread(rates, 1)))
        loading(memory._engine, texts[:LOADED], rows)
        memory.forget(scope="warm")
        memory.add_many(files)
        stats = memory.stats()
    rows.append(("passages", str(stats.passages)))
    rows.append(("memory, bytes a passage on disk", f"{stats.memory_bytes / stats.passages:.0f}"))
    rows.append(("memory, bytes a token", f"{stats.memory_bytes / stats.tokens:.0f}"))
    rows.append(("text, bytes a passage", f"{stats.text_bytes / stats.passages:.0f}"))


def loading(engine: Any, texts: Sequence[str], rows: Rows) -> None:
    """CPU time of decoding one passage's memory to tensors, in four-bit codes and in those of the
    codec, in turn.
    """
    method = engine._method
    reader = method if engine._cpu is None else engine._cpu._layout
    makers = {"four-bit codes": replace(method, encodes=False), "codec": method}
    made = {name: maker.compress(texts) for name, maker in makers.items()}
    times: dict[str, list[float]] = {name: [] for name in made}
    for number in range(len(texts)):
        for name, memories in made.items():

            def decode(memory: Any = memories[number]) -> None:
                for _ in range(DECODINGS):
                    # a copy: the reader keeps what it decoded of a memory
                    found = reader._decoded(replace(memory))
                    _ = found.keys, found.values

            decode()
            times[name].append(seconds(decode, time.process_time) / DECODINGS)
    for name, some in times.items():
        rows.append((f"loading a passage, {name}, ms of CPU time", spread(some)))


def forget_questions(memory: cmt_sdk.Memory) -> None:
    """Let the next question be put as if for the first time: its passages are ordered again."""
    memory.model._retriever._words = LRUCache()


def asking(memory: cmt_sdk.Memory, questions: Sequence[str], rows: Rows) -> None:
    """Time to the first token, memory and text reader in turn on the same questions."""
    for k in KS:
        first: dict[str, list[float]] = {"memory": [], "text": []}
        for round_ in range(2):  # the first round warms up
            for question in questions:
                for reader, times in first.items():
                    forget_questions(memory)
                    stages = memory.model.ask(question, k=k, reader=reader).milliseconds
                    if round_:
                        times.append(sum(stages.values()) - stages["decode"])
        for reader, times in first.items():
            rows.append((f"first token, k={k}, {reader} reader, ms", spread(times, 1)))
        pairs = zip(first["text"], first["memory"], strict=True)
        ratio = statistics.median(text / mine for text, mine in pairs)
        rows.append((f"first token, k={k}, text / memory", f"{ratio:.1f}"))
    answers = []
    for question in questions:
        forget_questions(memory)
        answers.append(memory.model.ask(question, k=KS[-1]).milliseconds)
    stages = {n: statistics.median(a.get(n, 0.0) for a in answers) for n in answers[0]}
    named = ", ".join(f"{n} {ms:.0f}" for n, ms in stages.items())
    rows.append((f"stages, k={KS[-1]}, memory reader, ms", named))


def decoding(memory: cmt_sdk.Memory, questions: Sequence[str], rows: Rows) -> None:
    """Tokens a second once the first is there."""
    story = "Tell a long story about a lighthouse."
    bare = [memory.model.ask(story, reader="none", max_tokens=48) for _ in range(ROUNDS)]
    answers = [memory.model.ask(q, k=4) for q in questions]
    for name, some in (("bare model", bare), ("memory reader", answers)):
        rates = [
            (a.answer_tokens - 1) / a.milliseconds["decode"] * 1000
            for a in some
            if a.answer_tokens > 1
        ]
        rows.append((f"decoding, {name}, tokens/s", spread(rates, 1)))


def starts(folder: Path, question: str, rows: Rows) -> None:
    """`cmt ask` in a fresh process and with a daemon that has the model, and `cmt list`."""
    ask, listing = [*CMT, "ask", "-m", str(folder), question], [*CMT, "list", "-m", str(folder)]
    with tempfile.TemporaryDirectory() as place:
        cold = os.environ | {"XDG_RUNTIME_DIR": place, "CMT_KEEP_ALIVE": "0"}
        warm = cold | {"CMT_KEEP_ALIVE": "300"}

        def run(command: Sequence[str], variables: Mapping[str, str]) -> float:
            return seconds(
                lambda: subprocess.run(command, capture_output=True, check=True, env=variables)  # noqa: S603 - our own
            )

        rows.append(("`cmt ask`, cold, s", spread([run(ask, cold) for _ in range(ROUNDS)], 1)))
        rows.append(("`cmt list`, cold, s", spread([run(listing, cold) for _ in range(ROUNDS)], 1)))
        run(ask, warm)  # starts the daemon
        rows.append(
            ("`cmt ask`, with a daemon, s", spread([run(ask, warm) for _ in range(ROUNDS)], 1))
        )
        run([*CMT, "daemon", "stop"], warm)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of `cmt serve` over a memory, while the block runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*CMT, "serve", "-m", str(folder), "--port", str(port), "--no-remember"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # noqa: S603 - our own
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/healthz").close()  # noqa: S310 - our own
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()


def streamed(address: str, question: str) -> tuple[int, float, float]:
    """Tokens of a streamed answer, and the seconds to its first piece and to its end."""
    body = json.dumps({"question": question, "k": 4, "stream": True}).encode()
    head = {"Content-Type": "application/json"}
    began, first, tokens = time.perf_counter(), 0.0, 0
    request = urllib.request.Request(f"{address}/api/ask", body, head)  # noqa: S310 - our own
    with urllib.request.urlopen(request) as events:  # noqa: S310
        for line in events:
            if line.startswith(b"event: piece") and not first:
                first = time.perf_counter() - began
            if line.startswith(b"data:"):
                tokens = json.loads(line[5:]).get("answer_tokens", tokens)
    return tokens, first or time.perf_counter() - began, time.perf_counter() - began


def serving(folder: Path, questions: Sequence[str], rows: Rows) -> None:
    """Sixteen questions by one client one after another, and by sixteen clients at once."""
    asked = [questions[n % len(questions)] for n in range(CLIENTS)]
    with served(folder) as address:
        streamed(address, asked[0])  # loads the model
        rates: dict[int, list[float]] = {1: [], CLIENTS: []}
        firsts: dict[int, list[float]] = {1: [], CLIENTS: []}
        for _ in range(ROUNDS):
            for clients, some in rates.items():
                found: list[tuple[int, float, float]] = []
                parts = [asked[n::clients] for n in range(clients)]

                def work(part: Sequence[str], to: list[tuple[int, float, float]] = found) -> None:
                    to += [streamed(address, question) for question in part]

                threads = [threading.Thread(target=work, args=(part,)) for part in parts]
                took = seconds(
                    lambda ts=threads: [*(t.start() for t in ts), *(t.join() for t in ts)]
                )
                some.append(sum(tokens for tokens, _, _ in found) / took)
                firsts[clients] += [first for _, first, _ in found]
    for clients, some in rates.items():
        rows.append((f"serving, {clients} at once, tokens/s in all", spread(some, 1)))
        rows.append((f"serving, {clients} at once, first piece, s", spread(firsts[clients], 1)))
    ratio = statistics.median(many / one for one, many in zip(*rates.values(), strict=True))
    rows.append((f"serving, {CLIENTS} / 1", f"{ratio:.2f}"))


def many(folder: Path, rows: Rows) -> None:
    """Search with and without a scope, and forgetting, among 100,000 passages without a model."""
    import load

    grown = load.grow(folder, MANY)
    with load.opened(folder) as memory:
        memory.search("Note 1")
        numbers = random.Random(0).sample(range(MANY), SEARCHED)
        asked = [" ".join(load.document(n).text.split()[2:8]) for n in numbers]
        for name in ("search", "search, scope of 1 in 100"):
            options = load.SEARCHES[name]
            took = [seconds(lambda q=q, o=options: memory.search(q, **o)) for q in asked]
            rows.append((f"{name}, among {MANY:,}, ms", spread(took)))
        rows.append((f"add to {MANY:,}, without a model, passages/s", grown["add, passages/s"]))
        ids = [d.id for d in memory.list(limit=ROUNDS).documents]
        took = [seconds(lambda i=i: memory.forget(i)) for i in ids]
        rows.append((f"forget one of {MANY:,}, s", spread(took, 1)))


def llama(folder: Path, questions: Sequence[str], rows: Rows) -> None:
    """Text RAG over the same passages through llama.cpp, where it is installed and $LLAMA_GGUF
    names the weights. In a process of its own: a build for another processor ends it.
    """
    if find_spec("llama_cpp") is None or not os.environ.get("LLAMA_GGUF"):
        return
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            found = pool.submit(llama_rows, folder, list(questions)).result()
        except BrokenProcessPool:
            found = [("llama.cpp text RAG", "its process was ended by a signal")]
    for row in found:
        rows.append(row)


def llama_rows(folder: Path, questions: Sequence[str]) -> list[tuple[str, str]]:
    """The rows of llama.cpp."""
    from llama_cpp import Llama

    rows = []
    model = Llama(os.environ["LLAMA_GGUF"], n_ctx=4096, n_threads=os.cpu_count(), verbose=False)
    with cmt_sdk.open(folder) as memory:
        for k in KS:
            times, rates = [], []
            for question in questions:
                text = "\n\n".join(m.passage.content for m in memory.search(question, k))
                model.reset()
                began = time.perf_counter()
                prompt: list[Any] = [{"role": "user", "content": f"{text}\n\nQuestion: {question}"}]
                pieces = model.create_chat_completion(
                    prompt, max_tokens=24, temperature=0, stream=True
                )
                marks = [time.perf_counter() for _ in pieces]
                times.append(marks[1] - began)
                rates.append((len(marks) - 2) / (marks[-1] - marks[1]))
            rows.append((f"llama.cpp text RAG, k={k}, first token, ms", spread(times)))
            rows.append((f"llama.cpp text RAG, k={k}, decoding, tokens/s", spread(rates, 1)))
    return rows


def questions_of(path: Path) -> list[str]:
    """The questions of the demo."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split("\t")[0] for line in lines if line.strip()]


def remember(rows: Rows) -> None:
    """Add the medians of a whole run to HISTORY, with the commit of the code."""
    git = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 - our own
    found = {name: re.split(r" \(", figure)[0] for name, figure in rows}
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    cells = [day, commit, *(found.get(name, "") for name in KEPT.values())]
    with HISTORY.open("a", encoding="utf-8") as file:
        file.write(f"| {' | '.join(cells)} |\n")


def load_now() -> float:
    """Processes that wait for a core, over the last minute."""
    return os.getloadavg()[0]


def measured(parts: Sequence[str], rows: Rows) -> None:
    """Run the named parts of the table."""
    questions = questions_of(QUESTIONS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "memory"
        adding(folder, rows)
        if "ask" in parts:
            with cmt_sdk.open(folder) as memory:
                asking(memory, questions, rows)
                decoding(memory, questions, rows)
            llama(folder, questions, rows)
        if "start" in parts:
            starts(folder, questions[0], rows)
        if "serve" in parts:
            serving(folder, questions, rows)
        if "many" in parts:
            many(Path(temporary) / "many", rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows.append(("peak memory of this process, MiB", f"{peak:.0f}"))


PARTS = ("ask", "start", "serve", "many")


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="besides adding")
    options = parser.parse_args()
    before, began, rows = load_now(), time.perf_counter(), Rows()
    measured(options.parts, rows)
    minutes = (time.perf_counter() - began) / 60
    from importlib.metadata import version

    machine = (
        f"{os.cpu_count()} cores, {platform.machine()}, torch {version('torch')}, load"
        f" {before:.2f} before, {load_now():.2f} after, {minutes:.0f} minutes; cmt-sdk"
        f" {cmt_sdk.__version__}"
    )
    table = "\n".join(["| what | median (lowest to highest) |", "|---|---|"])
    table += "".join(f"\n| {name} | {figure} |" for name, figure in rows)
    parts = "" if options.parts == PARTS else f" --parts {' '.join(options.parts)}"
    text = f"# Timings\n\n`python examples/benchmarks/bench.py{parts}` ({machine})\n\n{table}\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
        if options.parts == PARTS:
            remember(rows)


if __name__ == "__main__":
    main()
