#!/usr/bin/env python3
"""The programs at both ends of a link that benches/wan disturbs: they check each byte, and note when it came.

    ends.py serve PORT                                            answers what the others ask for
    ends.py transfer PORT SECONDS [--one-way] [--mbit RATE]       a stream of bytes, both ways unless said otherwise
    ends.py talk PORT SECONDS [--interval 1] [--size 80]          a line after each interval, which comes back

All use 127.0.0.1. The clients print "begin" when the first byte came, and at last a line of JSON; so does the server after
each transfer. Times are those of the monotonic clock, which all processes of a machine share.
"""

import argparse
import contextlib
import hashlib
import json
import os
import socket
import threading
import time

HOST = "127.0.0.1"
BLOCK_BYTES = 64 << 10
# Shorter pauses between two reads are not noted.
GAP_MIN = 0.02
BUCKET = 0.5
# What a client asks for: one word, then for transfers the most that each side sends, in Mbit/s, or 0.
REQUEST_BYTES = 16


def serve(port):
    with socket.create_server((HOST, port), backlog=64) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()


def answer(connection):
    with connection, contextlib.suppress(ConnectionError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        words = connection.recv(REQUEST_BYTES, socket.MSG_WAITALL).decode().split()
        if words == ["talk"]:
            while data := connection.recv(BLOCK_BYTES):
                connection.sendall(data)
        elif words:
            # Something has to say that the link is up.
            connection.sendall(b".")
            report(Transfer(connection, float(words[1])).run(sends=words[0] == "both"))


def dial(port, request):
    """The connection, through a forward that may just be starting."""
    end = time.monotonic() + 10
    while True:
        try:
            connection = socket.create_connection((HOST, port))
            break
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(request.encode().ljust(REQUEST_BYTES))
    return connection


def report(outcome):
    print(json.dumps(outcome), flush=True)


class Transfer:
    """One end of a stream of bytes in both directions."""

    def __init__(self, connection, mbit):
        self.connection, self.mbit = connection, mbit
        self.is_over = threading.Event()
        self.outcome = {"sent": 0, "received": 0, "gaps": [], "buckets": {}, "error": None}

    def run(self, sends, seconds=None):
        """Sends for so long, or, without, until the other end has finished; and receives to the end."""
        sending = threading.Thread(target=self._guarded, args=(self._send, sends, seconds), daemon=True)
        sending.start()
        self._guarded(self._receive)
        self.is_over.set()
        sending.join()
        return self.outcome

    def _guarded(self, work, *words):
        try:
            work(*words)
        except OSError as error:
            self.outcome["error"] = str(error)

    def _send(self, sends, seconds):
        digest, noise, count = hashlib.sha256(), os.urandom(BLOCK_BYTES - 8), 0
        end = None if seconds is None else time.monotonic() + seconds
        is_over = self.is_over.is_set if end is None else lambda: time.monotonic() >= end
        while sends and not is_over():
            # With its number, so that no two blocks are the same.
            block = count.to_bytes(8, "big") + noise
            self.connection.sendall(block)
            digest.update(block)
            count += 1
            if self.mbit:
                time.sleep(BLOCK_BYTES * 8 / self.mbit / 1e6)
        self.outcome |= {"sent": count * BLOCK_BYTES, "sent_sha256": digest.hexdigest()}
        self.connection.shutdown(socket.SHUT_WR)

    def _receive(self):
        digest, buffer = hashlib.sha256(), bytearray(1 << 20)
        view, outcome, last = memoryview(buffer), self.outcome, time.monotonic()
        while size := self.connection.recv_into(buffer):
            now = time.monotonic()
            if now - last > GAP_MIN:
                outcome["gaps"].append((last, now))
            last = now
            digest.update(view[:size])
            outcome["received"] += size
            bucket = int(now / BUCKET)
            outcome["buckets"][bucket] = outcome["buckets"].get(bucket, 0) + size
        outcome["received_sha256"] = digest.hexdigest()


def transfer(options):
    with dial(options.port, f"{'one' if options.one_way else 'both'} {options.mbit:g}") as connection:
        connection.recv(1)
        print("begin", flush=True)
        report(Transfer(connection, options.mbit).run(True, options.seconds))


def talk(options):
    outcome = {"answers": [], "error": None}
    try:
        with dial(options.port, "talk") as connection:
            end, is_first = time.monotonic() + options.seconds, True
            while is_first or time.monotonic() < end:
                line, sent_at = os.urandom(options.size), time.monotonic()
                connection.sendall(line)
                if connection.recv(len(line), socket.MSG_WAITALL) != line:
                    raise OSError("other bytes came back, or none")
                if is_first:
                    # It waited for the link.
                    print("begin", flush=True)
                    end, is_first = time.monotonic() + options.seconds, False
                else:
                    outcome["answers"].append((sent_at, time.monotonic()))
                time.sleep(max(0.0, sent_at + options.interval - time.monotonic()))
    except OSError as error:
        outcome["error"] = str(error)
    report(outcome)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("serve", "transfer", "talk"):
        command = commands.add_parser(name)
        command.add_argument("port", type=int)
        if name != "serve":
            command.add_argument("seconds", type=float)
    commands.choices["transfer"].add_argument("--one-way", action="store_true")
    commands.choices["transfer"].add_argument("--mbit", type=float, default=0)
    commands.choices["talk"].add_argument("--interval", type=float, default=1)
    commands.choices["talk"].add_argument("--size", type=int, default=80)
    options = parser.parse_args()
    match options.command:
        case "serve":
            serve(options.port)
        case "transfer":
            transfer(options)
        case "talk":
            talk(options)


if __name__ == "__main__":
    main()
