"""Clients of the completions API that note when each piece of text came. One thread reads all of them, so that it takes little of the
machine that is measured."""
import dataclasses
import json
import selectors
import socket
import threading
import time

import lab as labs

RECEIVE_BYTES = 1 << 16


@dataclasses.dataclass
class Stream:
    """What became of one request. times[0] is when it was sent; one more for each event with text."""
    body: dict
    headers: dict = dataclasses.field(default_factory=dict)
    status: int = 0
    reply_headers: dict = dataclasses.field(default_factory=dict)
    times: list = dataclasses.field(default_factory=list)
    text: str = ""
    error: str = ""    # the server's word, or what happened to the connection
    clean: bool = False  # the server ended it itself, by [DONE], an error event or an error reply
    over: bool = False

    @property
    def failed(self):
        return self.over and (bool(self.error) or not self.clean)

    def gaps(self):
        """(end, length) of each wait for the next text."""
        return [(b, b - a) for a, b in zip(self.times, self.times[1:])]


class Connection:
    """One request, sent, and its reply. read() takes what came."""

    def __init__(self, stream, cluster):
        self.stream, self.buffer, self.chunk_left, self.body = stream, b"", 0, b""
        self.in_headers, self.chunked, self.length = True, False, None
        payload = json.dumps(stream.body).encode()
        extra = "".join(f"{name}: {value}\r\n" for name, value in stream.headers.items())
        stream.times.append(time.monotonic())
        self.socket = labs.connect(cluster.host, cluster.http, cluster.client_netns, 10)
        self.socket.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: {cluster.host}\r\nContent-Type: application/json\r\n{extra}"
                            f"Connection: close\r\nContent-Length: {len(payload)}\r\n\r\n".encode() + payload)

    def read(self):
        """What is there; the stream may be over then."""
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except TimeoutError:
            self.end("nothing came for too long")
            return
        except OSError as failure:
            self.end(str(failure))
            return
        if not data:
            self.end("" if self.stream.clean else "the connection closed in the middle of the reply")
            return
        self.buffer += data
        self._parse(time.monotonic())

    def end(self, error=""):
        stream = self.stream
        if not self.in_headers and not self.chunked:
            stream.clean = self.length is not None and len(self.body) >= self.length
            if stream.clean and stream.status == 200:
                stream.text = json.loads(self.body)["choices"][0]["text"]
            elif stream.status != 200:
                error = self.body.decode(errors="replace") or error
        stream.error = stream.error or error
        stream.over = True
        self.socket.close()

    def _parse(self, now):
        if self.in_headers and not self._parse_headers():
            return
        if not self.chunked:
            self.body, self.buffer = self.body + self.buffer, b""
            if self.length is not None and len(self.body) >= self.length:
                self.end()
            return
        while self.buffer and not self.stream.over:
            if self.chunk_left == 0:
                line, found, rest = self.buffer.partition(b"\r\n")
                if not found:
                    return
                self.buffer = rest
                self.chunk_left = int(line, 16) if line else 0
                if line and self.chunk_left == 0:
                    self.end("" if self.stream.clean else "the reply ended without [DONE]")
                continue
            piece, self.buffer = self.buffer[:self.chunk_left], self.buffer[self.chunk_left:]
            self.chunk_left -= len(piece)
            self.body += piece
            self._events(now)

    def _parse_headers(self):
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        self.in_headers, self.buffer = False, rest
        self.stream.status = int(first.split()[1])
        headers = {name.strip().lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
        self.stream.reply_headers = headers
        self.chunked = headers.get("transfer-encoding") == "chunked"
        self.length = int(headers["content-length"]) if "content-length" in headers else None
        return True

    def _events(self, now):
        *events, self.body = self.body.split(b"\n\n")
        stream = self.stream
        for event in events:
            if event == b"data: [DONE]":
                stream.clean = True
            elif event.startswith(b"data: "):
                reply = json.loads(event[6:])
                if "error" in reply:
                    stream.error, stream.clean = json.dumps(reply["error"]), True
                elif reply.get("choices"):
                    stream.text += reply["choices"][0]["text"]
                    stream.times.append(now)


def perform(stream, cluster, hang_up_after=None, reset=False, patience=180):
    """Makes one request and waits for its end, or goes when so many events with text have come. The stream, over then."""
    try:
        connection = Connection(stream, cluster)
    except OSError as failure:
        stream.error, stream.over = f"no connection: {failure}", True
        return stream
    connection.socket.settimeout(patience)
    while not stream.over and (hang_up_after is None or len(stream.times) <= hang_up_after):
        connection.read()
    if not stream.over:
        if reset:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.socket.close()
    return stream


class StreamClients:
    """So many clients, each of which makes one request after the other: next_body(i) is the i-th client's next one, a Stream, or None: no
    more. A context manager; at its end all of them have got their reply, or were given up. `streams` is all that was asked for, in order."""

    def __init__(self, cluster, count, next_stream, patience=180):
        self.cluster, self.count, self.next_stream, self.patience = cluster, count, next_stream, patience
        self.streams = []
        self.thread = threading.Thread(target=self._run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, value, traceback):
        self.thread.join()

    def join(self):
        self.thread.join()

    def running(self):
        return self.thread.is_alive()

    def await_texts(self, count, seconds=60):
        """Until every client's last stream got some text, and one of them so many events with text."""
        def reached():
            if not self.running():
                raise labs.Failure(f"the streams ended before the fault: {[(s.status, s.error) for s in self.streams][:3]}")
            last = self.streams[-self.count:]
            events = [len(stream.times) - 1 for stream in last]
            return len(last) == self.count and min(events) >= 3 and max(events) >= count
        labs.wait_for(f"{count} tokens of each stream", seconds, reached, poll=0.002)

    def _begin(self, selector, i):
        stream = self.next_stream(i)
        if stream is None:
            return 0
        self.streams.append(stream)
        try:
            connection = Connection(stream, self.cluster)
        except OSError as failure:
            stream.error, stream.over = f"no connection: {failure}", True
            time.sleep(0.05)
            return self._begin(selector, i)
        connection.socket.setblocking(False)
        selector.register(connection.socket, selectors.EVENT_READ, (i, connection))
        return 1

    def _run(self):
        with selectors.DefaultSelector() as selector:
            alive = sum(self._begin(selector, i) for i in range(self.count))
            progress = time.monotonic()
            while alive:
                ready = selector.select(0.5)
                if ready:
                    progress = time.monotonic()
                elif time.monotonic() - progress > self.patience:
                    for key in list(selector.get_map().values()):
                        key.data[1].end(f"nothing came for {self.patience} s")
                    return
                for key, _ in ready:
                    i, connection = key.data
                    connection.read()
                    if connection.stream.over:
                        selector.unregister(key.fileobj)
                        alive += self._begin(selector, i) - 1
