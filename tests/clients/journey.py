"""Drives the server with the official Python SDK over stdio: journey.py PROJECT MODE COMMAND [ARGUMENT ...].

Prints one JSON line with what it saw; fails by exception. MODE is the SDK's: legacy, auto or a protocol version.
"""

import asyncio
import json
import os
import pathlib
import sys

import mcp

PROJECT, MODE, COMMAND, ARGUMENTS = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]
TOOLS = {
    "create_session", "execute_in_session", "execute_command", "get_execution", "cancel_execution", "respond_execution", "list_sessions",
    "get_session", "destroy_session", "get_session_logs", "transfer_files", "extend_session", "get_server_info",
}


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


async def journey(client):
    seen = []

    async def call(name, arguments, **more):
        result = await client.call_tool(name, arguments, **more)
        return bool(result.is_error), result.structured_content

    async def good(name, arguments, **more):
        failed, content = await call(name, arguments, **more)
        expect(not failed, (name, content))
        return content

    async def on_progress(progress, total, message):
        seen.append((progress, total, message))

    listed = {tool.name for tool in (await client.list_tools()).tools}
    expect(listed == TOOLS, listed ^ TOOLS)
    session = (await good("create_session", {"projectPath": str(PROJECT)}))["sessionId"]
    ran = await good("execute_command", {"sessionId": session, "command": "cat hello.txt; exit 3"})
    expect(ran["exitCode"] == 3 and ran["stdout"]["text"] == "hello", ran)
    slow = await good(
        "execute_command",
        {"sessionId": session, "command": "for i in 1 2 3 4; do echo $i; sleep 0.8; done"},
        progress_callback=on_progress,
    )
    expect(slow["stdout"]["text"] == "1\n2\n3\n4\n", slow)
    expect(seen, "no progress arrived")
    values = [progress for progress, _, _ in seen]
    expect(values == sorted(values) and len(set(values)) == len(values), ("progress goes up", seen))
    into = {
        "sessionId": session, "direction": "to_container",
        "sourcePath": str(PROJECT / "hello.txt"), "destPath": "/tmp/hello.txt",
    }
    expect((await good("transfer_files", into))["files"] == 1, "one file goes in")
    out = {
        "sessionId": session, "direction": "from_container",
        "sourcePath": "/tmp/hello.txt", "destPath": str(PROJECT / "back.txt"),
    }
    expect((await good("transfer_files", out))["bytes"] == 5, "five bytes come out")
    expect((PROJECT / "back.txt").read_text() == "hello", "the file is what it was")
    for name, arguments, code in [
        ("create_session", {"projectPath": "/etc"}, "path_forbidden"),
        ("create_session", {"projectPath": str(PROJECT), "unknown": 1}, "invalid_argument"),
        ("execute_command", {"sessionId": session, "command": 7}, "invalid_argument"),
        ("execute_command", {"sessionId": "s-" + "0" * 32, "command": "true"}, "session_not_found"),
        ("transfer_files", {**out, "destPath": str(PROJECT / ".envrc")}, "path_protected"),
    ]:
        failed, content = await call(name, arguments)
        expect(failed and content["error"]["code"] == code, (name, arguments, content))
    try:
        await client.call_tool("no_such_tool", {})
    except Exception as error:  # the SDK's own kind differs between versions
        expect("no_such_tool" in str(error), error)
    else:
        raise AssertionError("an unknown tool was called")
    await good("destroy_session", {"sessionId": session})
    left = await good("list_sessions", {})
    expect(left["sessions"] == [], left)
    return {"protocol": client.protocol_version, "progress": len(seen), "tools": len(listed)}


async def main():
    server = mcp.StdioServerParameters(command=COMMAND, args=ARGUMENTS, env=dict(os.environ), cwd=PROJECT)
    async with mcp.Client(server, mode=MODE) as client:
        print(json.dumps(await journey(client)))


asyncio.run(asyncio.wait_for(main(), 60))
