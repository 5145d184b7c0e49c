"""The daemon's side of `executor.sock`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.protocol import codec
from gateway.protocol.errors import MessageError
from gateway.protocol.executor_messages import (
    APPLY,
    FORGET_TOKEN,
    FRAME_MAX_BYTES,
    LOGS,
    RELOAD,
    STATUS,
    STOP,
    Desired,
    ExecutorReply,
    ExecutorRequest,
    ExecutorStatus,
)


class ExecutorError(Exception):
    """The executor refused, or is not there; the text says which."""


class ExecutorClient:
    """Asks the executor behind a socket; every call is a connection of its own and raises ExecutorError."""

    def __init__(self, path: Path, timeout_s: float = 10.0) -> None:
        self._path, self._timeout_s = path, timeout_s

    async def apply(self, desired: Desired) -> None:
        """Hands over a decision; on return it is verified and on the executor's disk. Applying it again is harmless."""
        await self._ask(ExecutorRequest(APPLY, desired))

    async def status(self) -> ExecutorStatus:
        return (await self._ask(ExecutorRequest(STATUS))).status or ExecutorStatus()

    async def logs(self, service: str) -> bytes:
        """The last output of a service, 64 KB at most."""
        return (await self._ask(ExecutorRequest(LOGS, service=service))).logs

    async def stop(self) -> None:
        """Stops every service and then the executor; returns when the services are gone (after 4 s at most)."""
        await self._ask(ExecutorRequest(STOP))

    async def reload(self) -> None:
        """Has the executor read its configuration file again; policy and limits count from then on."""
        await self._ask(ExecutorRequest(RELOAD))

    async def forget_token(self) -> None:
        """Has the spent enrolment token taken out of the configuration file."""
        await self._ask(ExecutorRequest(FORGET_TOKEN))

    async def _ask(self, request: ExecutorRequest) -> ExecutorReply:
        try:
            async with asyncio.timeout(self._timeout_s):
                reply = await self._exchange(request)
        except TimeoutError as error:
            raise ExecutorError(f"{self._path}: no answer to {request.operation} in {self._timeout_s:g} s") from error
        except (OSError, EOFError, MessageError) as error:
            raise ExecutorError(f"{self._path}: the executor does not answer: {error}") from error
        if reply.error:
            raise ExecutorError(reply.error)
        return reply

    async def _exchange(self, request: ExecutorRequest) -> ExecutorReply:
        reader, writer = await asyncio.open_unix_connection(str(self._path))
        try:
            content = codec.encode(request)
            writer.write(len(content).to_bytes(4, "big") + content)
            await writer.drain()
            size = int.from_bytes(await reader.readexactly(4), "big")
            if size > FRAME_MAX_BYTES:
                raise MessageError(f"a reply of {size} bytes")
            return codec.decode(ExecutorReply, await reader.readexactly(size), FRAME_MAX_BYTES)
        finally:
            writer.close()
