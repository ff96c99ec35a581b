"""Hold a conversation of ten turns with `cmt chat`, and write it into the manual as it came.

    python -m examples.conversations.transcript [--model NAME] [--page docs/conversations.md]

The page has a place for each model, between two comments; what is there is replaced.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

import cmt_sdk

PAGE = Path(__file__).parents[2] / "docs" / "conversations.md"
TURNS = (
    "Hi! My name is Tom and I work as a nurse in Bristol.",
    "What do you think about dogs?",
    "My sister Jo gets married on 3 May.",
    "What is my job?",
    "I moved to Cardiff last month.",
    "Where do I live?",
    "Where did I live before?",
    "When does my sister get married?",
    "What is my brother called?",
    "Thanks!",
)


def commands(model: str) -> list[str]:
    """What opens a conversation over a new memory."""
    made = [] if model == cmt_sdk.Settings().model else [f"cmt create --set model={model}"]
    return [*made, "cmt chat --remember"]


def conversation(model: str) -> str:
    """The turns with their replies, from one process with an empty memory."""
    with tempfile.TemporaryDirectory() as folder:
        here = os.environ | {"CMT_HOME": folder}
        *before, last = commands(model)
        for line in before:
            subprocess.run(line.split(), check=True, env=here, stdout=subprocess.DEVNULL)  # noqa: S603
        heard = subprocess.run(  # noqa: S603 - our own words
            [*last.split(), "--json"],
            input="\n".join(TURNS),
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=here,
            check=True,
        )
    replies = [json.loads(line)["text"] for line in heard.stdout.splitlines()]
    rounds = (f"> {turn}\n{reply}" for turn, reply in zip(TURNS, replies, strict=True))
    return "\n\n".join(rounds)


def written(page: str, model: str, talk: str) -> str:
    """The page with the conversation in the model's place."""
    start, end = f"<!-- transcript of {model} -->", "<!-- end of transcript -->"
    typed = "\n".join(f"$ {line}" for line in commands(model))
    block = f"{start}\n\n```text\n{typed}\n\n{talk}\n```\n\n{end}"
    place = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    if not place.search(page):
        raise SystemExit(f"the page has no place for {model}: write {start} and {end} into it")
    return place.sub(lambda _: block, page, count=1)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=cmt_sdk.Settings().model)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    page = options.page.read_text(encoding="utf-8")
    made = written(page, options.model, conversation(options.model))
    options.page.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
