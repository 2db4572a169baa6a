"""Drives netdevd by qemu.qmp, an independent client: commands, errors, events, a second client."""

import asyncio
import sys

from qemu.qmp import EventListener, ExecuteError, QMPClient


async def main(path: str) -> None:
    one, two = QMPClient("one"), QMPClient("two")
    await one.connect(path)
    await two.connect(path)
    assert one.greeting is not None

    version = await one.execute("query-version")
    assert version["qemu"]["major"] == 10, version

    await one.execute("netdev_add", {"type": "hubport", "id": "a", "hubid": 1})
    try:
        await two.execute("netdev_add", {"type": "hubport", "id": "a", "hubid": 1})
        raise AssertionError("a duplicate id is accepted")
    except ExecuteError as error:
        assert str(error) == "Duplicate ID 'a'", error
    try:
        await one.execute("no-such-command")
        raise AssertionError("an unknown command is accepted")
    except ExecuteError as error:
        assert error.error_class == "CommandNotFound", error
    names = await asyncio.gather(*(one.execute("query-name") for _ in range(100)))
    assert names == [{}] * 100
    schema = await one.execute("query-qmp-schema")
    assert any(entry["name"] == "netdev_add" for entry in schema)

    listener = EventListener(names=["SHUTDOWN"])
    two.register_listener(listener)
    await one.execute("quit")
    event = await asyncio.wait_for(listener.get(), 10)
    assert event["data"]["reason"] == "host-qmp-quit", event
    for client in (one, two):
        try:
            await asyncio.wait_for(client.disconnect(), 10)
        except EOFError:
            pass
    print("all well")


asyncio.run(asyncio.wait_for(main(sys.argv[1]), 60))
