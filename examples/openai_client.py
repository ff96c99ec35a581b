"""OpenAI's own client over a memory: start `cmt serve`, then openai_client.py USER, and a line a
turn.
"""

import sys
from collections.abc import Iterable

from openai import OpenAI

URL = "http://127.0.0.1:8765/v1"


def main(client: OpenAI, user: str, lines: Iterable[str]) -> None:
    """Words stay when the server starts again; no user is answered from another user's words."""
    for message in filter(None, map(str.strip, lines)):
        messages = [{"role": "user", "content": message}]
        for chunk in client.chat.completions.create(
            model="cmt", user=user, messages=messages, stream=True
        ):
            print(
                "".join(choice.delta.content or "" for choice in chunk.choices), end="", flush=True
            )
        print()


if __name__ == "__main__":
    main(OpenAI(base_url=URL, api_key="none"), sys.argv[1], sys.stdin)
