"""A chatbot that knows each of its users, and no other user's words: chatbot.py USER, then a line a
turn.

"forget me" erases every word of the user, from the files too.
"""

import sys
from collections.abc import Iterable
from urllib.parse import quote

import cmt_sdk


def main(memory: cmt_sdk.Memory, user: str, lines: Iterable[str]) -> None:
    """Answer line by line from the words of this user, now or earlier, and remember the line."""
    # a name with a slash in it is no door to another user's scope
    scope = f"user/{quote(user, safe='')}"
    chat = memory.chat(remember=True, scope=scope)
    for message in filter(None, map(str.strip, lines)):
        if message == "forget me":
            receipt = memory.forget(scope=scope)
            print(f"erased: {len(receipt.documents)}, traces left: {receipt.traces_found}")
            chat = memory.chat(remember=True, scope=scope)
            continue
        for piece in chat.stream(message):
            print(piece, end="", flush=True)
        print()


if __name__ == "__main__":
    with cmt_sdk.open("chatbot") as opened:
        main(opened, sys.argv[1], sys.stdin)
