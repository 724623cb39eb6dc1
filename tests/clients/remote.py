"""Drives the server over HTTP with the official Python SDK: remote.py URL TOKEN MODE PROJECT.

Prints one JSON line with what it saw; fails by exception. MODE is the SDK's: legacy, auto or a protocol version. PROJECT is a name, as a
caller from elsewhere knows it. With `denied` as MODE: expects that nobody is let in.
"""

import asyncio
import json
import sys

import httpx2
import mcp
from mcp.client.streamable_http import streamable_http_client

URL, TOKEN, MODE, PROJECT = sys.argv[1:5]


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

    expect(len((await client.list_tools()).tools) == 13, "thirteen tools")
    created = await good("create_session", {"projectPath": PROJECT})
    session = created["sessionId"]
    expect(created["projectPath"] == PROJECT, created)
    ran = await good("execute_command", {"sessionId": session, "command": "cat hello.txt; exit 3"})
    expect(ran["exitCode"] == 3 and ran["stdout"]["text"] == "hello", ran)
    slow = await good(
        "execute_command",
        {"sessionId": session, "command": "for i in 1 2 3; do echo $i; sleep 0.8; done"},
        progress_callback=on_progress,
    )
    expect(slow["stdout"]["text"] == "1\n2\n3\n", slow)
    expect(seen, "no progress arrived")
    for name, arguments, code in [
        ("create_session", {"projectPath": "/etc"}, None),
        ("create_session", {"projectPath": PROJECT, "unknown": 1}, "invalid_argument"),
        ("execute_command", {"sessionId": "s-" + "0" * 32, "command": "true"}, "session_not_found"),
    ]:
        failed, content = await call(name, arguments)
        expect(failed and code in (None, content["error"]["code"]), (name, arguments, content))
    await good("destroy_session", {"sessionId": session})
    left = await good("list_sessions", {})
    expect(left["sessions"] == [], left)
    return {"protocol": client.protocol_version, "progress": len(seen)}


async def main():
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
        try:
            async with mcp.Client(streamable_http_client(URL, http_client=http), mode="auto" if MODE == "denied" else MODE) as client:
                if MODE == "denied":
                    refused = await client.call_tool("create_session", {"projectPath": PROJECT})
                    expect(not refused.is_error, "refused")
                    print(json.dumps({"denied": False}))
                    return
                seen = await journey(client)
        except Exception:
            if MODE != "denied":
                raise
            seen = {"denied": True}
    expect(MODE != "denied" or seen == {"denied": True}, "somebody was let in")
    print(json.dumps(seen))


asyncio.run(asyncio.wait_for(main(), 60))
