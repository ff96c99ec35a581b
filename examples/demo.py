"""Answer questions from a memory that another process made: python examples/demo.py FOLDER
QUESTIONS.

QUESTIONS holds one question a line, and after a tab, for the reader of the demo, what the documents
say.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import cmt_sdk


def main(folder: str, questions: str) -> None:
    """Ask each question with the memory reader and print the answer with its sources."""
    began = time.perf_counter()
    with cmt_sdk.open(folder, create=False) as memory:
        stats = memory.stats()
        print(
            f"{stats.documents} documents, {stats.passages} passages, {stats.tokens} tokens of text"
        )
        for line in Path(questions).read_text(encoding="utf-8").splitlines():
            question, _, expected = line.partition("\t")
            answer = memory.model.ask(question)
            spent = time.perf_counter() - began
            print(f"\n{question}\n  -> {answer.text}    (the documents say: {expected})")
            print(f"     from {Path(str(answer.sources[0].source)).name}, {answer.sources[0].why}")
            print(
                f"     {answer.prompt_tokens} prompt tokens for {answer.memory_tokens} tokens of"
                f" memory; {spent:.1f} s"
            )
            began = time.perf_counter()


if __name__ == "__main__":
    main(*sys.argv[1:])
