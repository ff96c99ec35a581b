"""What an assistant does with `cmt mcp`, by the official client: mcp_client.py MEMORY."""

import asyncio
import sys
from typing import Any

from mcp import Client, StdioServerParameters


async def main(server: StdioServerParameters) -> None:
    """Remember, ask, and show where the answer is from."""
    async with Client(server) as client:
        print("tools:", ", ".join(sorted(tool.name for tool in (await client.list_tools()).tools)))
        await call(client, "remember", text="The museum moved to Lisbon in 2019.", source="trip.md")
        reply = await call(client, "ask", question="Where did the museum move?")
        print(reply["answer"], [source["source"] for source in reply["sources"]])


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """A tool's structured result; an error is a sentence for the assistant."""
    result = await client.call_tool(tool, arguments)
    if result.is_error:
        raise SystemExit(result.content[0].text)
    return dict(result.structured_content or {})


if __name__ == "__main__":
    asyncio.run(main(StdioServerParameters(command="cmt", args=["mcp", "-m", sys.argv[1]])))
