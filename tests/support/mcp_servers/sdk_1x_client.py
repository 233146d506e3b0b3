"""A client on the 1.x SDK, run by a Python that has it. It runs the steps, and prints a report as JSON.

usage: older_client.py URL KEY STEP... | older_client.py - COMMAND STEP...
COMMAND is a JSON list of words; a STEP is tool:JSON_ARGUMENTS, or the URI of a resource, where {job} is the last job.
"""

# Written for the 1.x SDK, while the one installed beside these tests is 2.x.
# mypy: ignore-errors
from __future__ import annotations

import asyncio
import json
import sys

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamablehttp_client


async def main(target: str, key_or_command: str, steps: list[str]) -> None:
    if target == "-":
        command, *args = json.loads(key_or_command)
        line = stdio_client(StdioServerParameters(command=command, args=args))
    else:
        line = streamablehttp_client(target, headers={"Authorization": f"Bearer {key_or_command}"})
    async with line as (read, write, *_), ClientSession(read, write) as session:
        initialized = await session.initialize()
        report = {"protocol": initialized.protocolVersion, "server": initialized.serverInfo.name, "steps": []}
        report["tools"] = [tool.name for tool in (await session.list_tools()).tools]
        job = ""
        for step in steps:
            if step.startswith("job:"):
                read_ = await session.read_resource(step.replace("{job}", job))
                report["steps"].append(json.loads(read_.contents[0].text))
                continue
            progress_calls = []

            async def progress(*arguments_, progress_calls=progress_calls):
                progress_calls.append(arguments_)

            tool, _, arguments = step.partition(":")
            answer = await session.call_tool(tool, json.loads(arguments or "{}"), progress_callback=progress)
            result = answer.structuredContent or {"error": answer.content[0].text}
            job = result.get("job_id", job)
            report["steps"].append({**result, "is_error": answer.isError, "progress_heard": len(progress_calls)})
    print(json.dumps(report))


asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
