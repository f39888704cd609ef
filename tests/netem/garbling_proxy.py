#!/usr/bin/env python3
"""Forwards TCP connections, and spoils what a process sends through it when it is told to.

  garbling_proxy.py --control FIFO LISTEN_PORT:TARGET_PORT...

All on 127.0.0.1. Lines in the FIFO: "payload PID" flips one byte in the middle of every large block that this process sends on the
connections that it opened; "noise PID" flips bytes anywhere; "clean" ends that. Prints "ready" when it listens.
"""
import argparse
import os
import pathlib
import random
import socket
import sys
import threading

BLOCK_BYTES = 1 << 16
LARGE_BYTES = 600  # below are the transport's own frames and control messages; above, activations


class Spoiler:
    """What is to be spoilt now."""

    def __init__(self):
        self.kind, self.pid, self.random = "clean", 0, random.Random(7)

    def command(self, line):
        kind, *pid = line.split()
        self.kind, self.pid = kind, int(pid[0]) if pid else 0

    def apply(self, owner, block):
        if self.pid == 0 or owner() != self.pid:
            return block
        spoilt = bytearray(block)
        if self.kind == "noise":
            for _ in range(1 + len(spoilt) // 50):
                spoilt[self.random.randrange(len(spoilt))] ^= 1 << self.random.randrange(8)
        elif self.kind == "payload" and len(spoilt) >= LARGE_BYTES:
            spoilt[self.random.randrange(len(spoilt) // 4, 3 * len(spoilt) // 4)] ^= 1 << self.random.randrange(8)
        return bytes(spoilt)


def process_at(port):
    """Whose end of a connection this local port is; 0: nobody's."""
    lines = [line for table in ("tcp", "tcp6") for line in pathlib.Path("/proc/net", table).read_text().splitlines()[1:]]
    for fields in map(str.split, lines):
        if int(fields[1].split(":")[1], 16) == port and fields[3] == "01":
            wanted = f"socket:[{fields[9]}]"
            break
    else:
        return 0
    for proc in pathlib.Path("/proc").iterdir():
        if not proc.name.isdigit():
            continue
        try:
            if "efedllm" not in (proc / "comm").read_text():
                continue
            if any(os.readlink(fd) == wanted for fd in (proc / "fd").iterdir()):
                return int(proc.name)
        except OSError:
            continue
    return 0


class Owner:
    """Whose connection it is, looked up when it matters: the tables of a busy kernel now and then miss one."""

    def __init__(self, port):
        self.port, self.pid = port, 0

    def __call__(self):
        self.pid = self.pid or process_at(self.port)
        return self.pid


def forward(source, sink, owner, spoiler):
    try:
        while block := source.recv(BLOCK_BYTES):
            sink.sendall(spoiler.apply(owner, block) if spoiler else block)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, sink):
            end.close()


def serve(listener, target, spoiler):
    while True:
        client, address = listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", target), 5)
        except OSError:
            client.close()
            continue
        server.settimeout(None)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=forward, args=(client, server, Owner(address[1]), spoiler), daemon=True).start()
        threading.Thread(target=forward, args=(server, client, None, None), daemon=True).start()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--control", required=True)
    parser.add_argument("ports", nargs="+")
    args = parser.parse_args()
    spoiler = Spoiler()
    for pair in args.ports:
        listen, target = map(int, pair.split(":"))
        listener = socket.create_server(("127.0.0.1", listen))
        threading.Thread(target=serve, args=(listener, target, spoiler), daemon=True).start()
    print("ready", flush=True)
    while True:
        with open(args.control) as fifo:
            for line in fifo:
                spoiler.command(line)


if __name__ == "__main__":
    sys.exit(main())
