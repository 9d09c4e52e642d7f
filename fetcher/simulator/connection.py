"""One client's connection on a bare asyncio protocol: requests in, replies out, in order.

Hand-written because it must never be the bottleneck of what is measured against it: one answer is one write, and a
delayed answer costs a timer, not a thread.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from functools import partial

from fetcher.simulator.faults import Ending
from fetcher.simulator.service import Service
from fetcher.simulator.wire import Refused, Reply, final

logger = logging.getLogger(__name__)

MAX_HEAD = 16 * 1024
"""Bytes of a request line with its headers; a longer one is refused with 431."""
MAX_WAITING = 64 * 1024
"""Bytes of pipelined requests read ahead of the answer being given."""

_DRIP_SECONDS = 0.02  # between two pieces of an answer that is spread over some seconds
_RESET_SECONDS = 0.01  # between what is sent and the reset behind it


class Connection(asyncio.Protocol):
    """One client: its requests are answered one after the other, in order, pipelined or not.

    asyncio calls the methods without an underscore; `others` holds every open connection of the server.
    """

    def __init__(self, service: Service, others: set[Connection]) -> None:
        self._service = service
        self._others = others
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._head: bytes | None = None  # of the request whose body has not come yet
        self._body_size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._answering = False
        self._choked = False
        self._ending = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._others.add(self)
        # asyncio does so only where the listening socket was made with the protocol number of TCP.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, _exc: Exception | None) -> None:
        """It is gone, or was dropped."""
        self._others.discard(self)
        self._ending = True
        if self._timer is not None:
            self._timer.cancel()
        if self._answering:
            self._service.in_flight -= 1

    def data_received(self, data: bytes) -> None:
        """It sent something."""
        if self._ending:
            return
        self._buffer = self._buffer + data if self._buffer else data
        self._serve()

    def pause_writing(self) -> None:
        """It does not read as fast as it asks."""
        self._choked = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._choked = False
        self._serve()

    def abort(self, *, reset: bool = False) -> None:
        """Drop the connection, whatever is under way; with `reset` the other side is told so (TCP RST)."""
        if reset:
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._transport.abort()

    def _serve(self) -> None:
        """Answer what is in the buffer until an answer has to wait or the rest is no whole request."""
        while self._buffer and not (self._answering or self._choked or self._ending):
            if self._head is not None:
                if len(self._buffer) < self._body_size:
                    break
                self._begin_with_body(self._head)
                continue
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if len(head) > MAX_HEAD:
                self._answer(final(431))
            elif not end:
                break
            else:
                self._buffer = rest
                self._take(head.lstrip(b"\r\n"))
        if len(self._buffer) > MAX_WAITING + self._body_size and not self._ending:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _take(self, head: bytes) -> None:
        """Answer a request whose head is there, or wait for its body."""
        try:
            self._body_size = self._service.body_size(head)
        except Refused as refused:
            self._answer(final(refused.status, refused.body))
            return
        if not self._body_size:
            self._begin(head)
            return
        self._head = head
        if len(self._buffer) < self._body_size and b"\r\nexpect: 100-continue" in head.lower():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _begin_with_body(self, head: bytes) -> None:
        body, self._buffer = self._buffer[: self._body_size], self._buffer[self._body_size :]
        self._head, self._body_size = None, 0
        self._begin(head, body)

    def _begin(self, head: bytes, body: bytes = b"") -> None:
        service = self._service
        # The latency counts from here: to make the answer is part of it.
        began = self._loop.time()
        self._answering = True
        service.in_flight += 1
        if service.in_flight > service.max_in_flight:
            service.max_in_flight = service.in_flight
        try:
            reply = service.reply(head, body)
        except Exception:
            logger.exception("The simulator could not answer %r", head[:200])
            reply = final(500)
        if reply.delay > 0:
            self._timer = self._loop.call_at(began + reply.delay, self._finish, reply)
        else:
            self._answer(reply)

    def _finish(self, reply: Reply) -> None:
        """Send an answer that had to wait, and go on."""
        self._timer = None
        self._answer(reply)
        self._serve()

    def _answer(self, reply: Reply) -> None:
        if reply.drip and len(reply.payload) > 1:
            self._drip(reply, 0, reply.payload)
            return
        self._transport.write(reply.payload)
        if reply.ending is Ending.HANG:
            return
        if self._answering:
            self._answering = False
            self._service.in_flight -= 1
        if reply.ending is not Ending.KEEP:
            self._end(reply.ending)

    def _drip(self, reply: Reply, sent: int, payload: bytes) -> None:
        """Send a piece of an answer that is spread over some seconds, and see to the others."""
        pieces = max(2, min(len(payload), round(reply.drip / _DRIP_SECONDS)))
        size = -(-len(payload) // pieces)
        rest = payload[sent + size :]
        if rest:
            self._transport.write(payload[sent : sent + size])
            self._timer = self._loop.call_later(reply.drip / pieces, self._drip, reply, sent + size, payload)
        else:
            self._finish(Reply(payload[sent:], ending=reply.ending))

    def _end(self, ending: Ending) -> None:
        """Let go of the connection after its last answer."""
        self._ending = True
        self._buffer = b""
        if ending is Ending.RESET:
            # What was sent is to arrive first: a reset takes with it what was not read.
            self._timer = self._loop.call_later(_RESET_SECONDS, partial(self.abort, reset=True))
            return
        # To close at once, with a body of the client still on its way, would reset the connection and
        # could take the answer with it: say that nothing more comes, and wait for the client to see it.
        self._transport.write_eof()
        self._timer = self._loop.call_later(1.0, self._transport.abort)
