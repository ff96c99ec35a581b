"""A LlamaIndex chat that remembers earlier runs: llama_index_chat.py USER WORDS, with an LLM set in
LlamaIndex's Settings.
"""

import asyncio
import sys

from llama_index.core import Settings
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import LLM
from llama_index.core.memory import Memory
from sqlalchemy.ext.asyncio import create_async_engine

import cmt_sdk
from cmt_adapters.llama_index import CMTMemoryBlock


def main(memory: cmt_sdk.Memory, llm: LLM, user: str, words: str) -> str:
    """Answer from the words of earlier runs, and keep those of this one."""
    block = CMTMemoryBlock(memory=memory, scope=f"user/{user}")

    async def talk() -> str:
        # of this run alone; given, so that it can be closed
        history = create_async_engine("sqlite+aiosqlite://")
        chat_memory = Memory.from_defaults(memory_blocks=[block], async_engine=history)
        answer = await SimpleChatEngine.from_defaults(llm=llm, memory=chat_memory).achat(words)
        await block.aput(await chat_memory.aget_all(), session_id=chat_memory.session_id)
        await history.dispose()
        return str(answer)

    return asyncio.run(talk())


if __name__ == "__main__":
    with cmt_sdk.open() as opened:
        print(main(opened, Settings.llm, sys.argv[1], sys.argv[2]))
