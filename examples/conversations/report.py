"""Write the report on the dialogues from kept replies, as Markdown.

python -m examples.conversations.talk --out FILE.jsonl.gz
python -m examples.conversations.report FILE.jsonl.gz --commit COMMIT > PAGE.md

For another model: `talk --set model=NAME`, and `report --model NAME`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from examples.conversations.judging import Round
from examples.conversations.records import read
from examples.conversations.script import KINDS, dialogues
from examples.conversations.talk import ROWS, judged

FIRST = 30  # dialogues that were there while the conversation was built; the others came after
WHAT = KINDS | {
    "statements kept": "of the statements, those that the memory holds afterwards",
    "questions left out": "of the questions, those of which the memory keeps nothing",
}
HEAD = """\
# Dialogues with {model}

{count} dialogues of `examples/conversations/dialogues`, {turns} turns, played once with
{settings} by
`Memory.chat(remember=True)`, with the code of commit {commit}. Made from the kept replies;
`examples/conversations/judging.py` says which are right:

    python -m examples.conversations.talk {options}--out FILE.jsonl.gz
    python -m examples.conversations.report FILE.jsonl.gz --commit COMMIT{named}

The replies of this table are in `examples/conversations/{kept}`; `talk --out` with a copy
of it, `--seconds 0` and `--verbose` shows each wrong turn. The conversation was built with
dialogues 1 to {first} at hand; the others were written afterwards, before they were played. Some of
what failed in these was repaired since, so they are not blind either.

"""


def page(
    played: Mapping[str, Sequence[Round]], commit: str, model: str = "", setting: str = ""
) -> str:
    """The report: right turns by kind, of the first dialogues, of the later ones, of all.

    Args:
        played: By name, the rounds of each dialogue.
        commit: The code that gave the replies.
        model: The model's name; "" for the default one.
        setting: What `talk` had after `--set`, if anything.
    """
    names = sorted(played)
    sets = [names[:FIRST], *([names[FIRST:], names] if len(names) > FIRST else [])]
    counts = [_counts(played[name] for name in chosen) for chosen in sets]
    heads = [f"1 to {FIRST}", *([f"{FIRST + 1} to {len(names)}", "all"] if len(sets) > 1 else [])]
    rows = [f"| kind | the user | {' | '.join(heads)} | |", "|---" * (len(heads) + 3) + "|"]
    for row in ROWS:
        cells = [f"{right[row]} of {total[row]}" for right, total in counts]
        right, total = counts[-1]
        share = f"{100 * right[row] // total[row]} %"
        rows.append(f"| {' | '.join([row, WHAT[row], *cells, share])} |")
    turns = sum(len(rounds) for rounds in played.values())
    head = HEAD.format(
        count=len(names), turns=turns, first=FIRST, commit=commit, **_about(model, setting)
    )
    return head + "\n".join(rows)


def _counts(rounds: Iterable[Sequence[Round]]) -> tuple[Counter[str], Counter[str]]:
    """Right and total by row."""
    found = [pair for some in rounds for pair in judged(some)]
    return Counter(row for row, why in found if not why), Counter(row for row, _ in found)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("replies", type=Path, help="a file that `talk --out` made")
    parser.add_argument("--commit", required=True, help="the code that gave the replies")
    parser.add_argument("--model", default="", help="a model by its name")
    parser.add_argument("--set", default="", metavar="NAME=VALUE", help="as `talk` had it")
    options = parser.parse_args()
    played = read(options.replies, dialogues())
    print(page(played, options.commit, options.model, options.set))


def _about(model: str, setting: str) -> dict[str, str]:
    """What a page says of the model and the settings."""
    which = "this model with its shipped adapters" if model else "the default model"
    given = [f"--set {pair} " for pair in (f"model={model}" if model else "", setting) if pair]
    return {
        "model": model or "SmolLM2-135M-Instruct",
        "settings": f"{which} and {setting or 'default settings'}",
        "options": "".join(given),
        "named": f" --model {model}" if model else "",
        "kept": f"replies-{model}.jsonl.gz" if model else "replies.jsonl.gz",
    }


if __name__ == "__main__":
    main()
