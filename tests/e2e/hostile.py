#!/usr/bin/env python3
"""What clients do to a server that nobody asked for: a real cluster on loopback must answer it clearly and leak nothing.

  tests/e2e/hostile.py BIN_DIR [--requests 1000] [CASE...]

Cases: burst, mute, vanish, full, flat (default: all). BIN_DIR has efedllm-coord, efedllm-worker and efedllm-ctl. --requests is how many
short ones `flat` makes; the full check is 10000.
"""
import argparse
import concurrent.futures
import http.client
import json
import os
import pathlib
import re
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "netem"))
import lab as labs  # noqa: E402

MODEL = pathlib.Path(__file__).resolve().parents[2] / "models" / "seedling" / "seedling-q8_0.gguf"
STORY = "Once upon a time there was a "
ANIMALS = ["shy owl", "red fox", "small bear", "brave mouse", "lazy cat", "young wolf", "proud goose", "green frog"]


class Cluster(labs.Cluster):
    """A coordinator and two workers on loopback."""

    def __init__(self, lab, binaries, name, coordinator_flags=(), worker_flags=()):
        super().__init__(lab, binaries, MODEL, name, coordinator_flags=coordinator_flags, worker_flags=worker_flags)

    def status(self):
        return self.ctl("status") or {"state": "gone"}

    def connect(self, timeout=120):
        return http.client.HTTPConnection("127.0.0.1", self.http, timeout=timeout)

    def post(self, body, connection=None):
        """(status, headers, JSON) of a completion."""
        connection = connection or self.connect()
        connection.request("POST", "/v1/completions", json.dumps({"temperature": 0} | body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.headers, json.loads(response.read())

    def text(self, prompt, tokens, **more):
        status, _, reply = self.post({"prompt": prompt, "max_tokens": tokens, "ignore_eos": True} | more)
        assert status == 200, reply
        return reply["choices"][0]["text"]

    def open_stream(self, body, receive_buffer=None):
        """A socket on which a streamed completion was asked for and nothing was read."""
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.connect(("127.0.0.1", self.http))
        payload = json.dumps({"stream": True, "temperature": 0, "ignore_eos": True} | body).encode()
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                     % (len(payload), payload))
        return sock

    def await_idle(self, seconds=30):
        """Nothing runs, nothing waits, and no KV is held for a request."""
        def idle():
            status = self.status()
            return status["requests_running"] == status["requests_queued"] == 0 and self.kv_in_use(status) == 0
        try:
            labs.wait_for("all to be freed", seconds, idle)
        except labs.Failure as failure:
            raise labs.Failure(f"{failure}: {json.dumps(self.status())}") from None

    @staticmethod
    def kv_in_use(status):
        """Tokens of KV that requests hold; what a cache keeps of earlier ones does not count."""
        return status["kv_tokens_used"]

    def check_cached(self):
        """Once idle, the stages hold what the prefix cache knows of, to the token."""
        def is_coherent():
            status = self.status()
            ends = ([node for node in status["nodes"] if node["first_layer"] == 0],
                    [node for node in status["nodes"] if node["last_layer"] == status["layers"]])
            return all(sum(node["kv_tokens_used"] for node in end) == status["kv_tokens_cached"] for end in ends)
        labs.wait_for("the workers' KV to be that of the prefix cache", 10, is_coherent)  # heartbeats tell it

    def counts(self):
        """What must not grow: per process threads, file descriptors and resident KiB."""
        counts = {}
        for process in self.part.processes:
            proc = pathlib.Path("/proc") / str(process.pid)
            fields = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
            counts[process.name] = {"threads": int(fields["Threads"]), "fds": len(os.listdir(proc / "fd")),
                                    "rss_kib": int(fields["VmRSS"].split()[0])}
        return counts

    def check_alive(self):
        for process in self.part.processes:
            assert process.alive(), f"{process.name} ended:\n{process.tail()}"


def burst(lab, args):
    """500 requests at once on a queue of 64: some are told to come back, all others get what they would have got alone."""
    with Cluster(lab, args.binaries, "burst", ["--queue", 64, "--max-sequences", 8]) as cluster:
        cluster.await_serving()
        prompts = [STORY + animal for animal in ANIMALS]
        alone = {prompt: cluster.text(prompt, 24) for prompt in prompts}
        connections = [cluster.connect() for _ in range(500)]
        for connection in connections:
            connection.connect()
        with concurrent.futures.ThreadPoolExecutor(500) as pool:
            replies = list(pool.map(lambda i: (prompts[i % 8], *cluster.post(
                {"prompt": prompts[i % 8], "max_tokens": 24, "ignore_eos": True}, connections[i])), range(500)))
        served = [(prompt, reply) for prompt, status, _, reply in replies if status == 200]
        refused = [(headers, reply) for _, status, headers, reply in replies if status == 429]
        assert len(served) + len(refused) == 500, sorted({status for _, status, _, _ in replies})
        assert len(served) >= 64 and refused, f"{len(served)} served, {len(refused)} refused"
        for prompt, reply in served:
            assert reply["choices"][0]["text"] == alone[prompt], reply
        for headers, reply in refused:
            assert int(headers["Retry-After"]) > 0 and reply["error"]["message"], (dict(headers), reply)
        cluster.await_idle()
        print(f"burst: {len(served)} served, {len(refused)} told to retry")


def mute(lab, args):
    """Clients that ask for streams and never read: the others are served, and nothing is kept for those."""
    with Cluster(lab, args.binaries, "mute", ["--max-sequences", 8]) as cluster:
        cluster.await_serving()
        alone = cluster.text(STORY + "shy owl", 24)
        body = {"prompt": STORY + "red fox", "max_tokens": 400, "logprobs": 5}
        sockets = [cluster.open_stream(body, receive_buffer=2048) for _ in range(24)]
        for _ in range(8):
            assert cluster.text(STORY + "shy owl", 24) == alone
        cluster.await_idle(90)
        for sock in sockets:
            sock.close()
        cluster.check_alive()
        print("mute: 24 clients that never read, 8 others served")


def vanish(lab, args):
    """Clients that go in the middle of their stream, or before it: all of theirs is freed within a moment."""
    with Cluster(lab, args.binaries, "vanish", ["--max-sequences", 8, "--queue", 64]) as cluster:
        cluster.await_serving()
        for reset in (False, True):
            sockets = [cluster.open_stream({"prompt": STORY + ANIMALS[i % 8], "max_tokens": 450, "n": 1 + i % 2}) for i in range(32)]
            for sock in sockets[:8]:
                sock.settimeout(60)
                answer = sock.recv(2000)
                assert answer.startswith(b"HTTP/1.1 200"), answer
            for sock in sockets:
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sock.close()
            cluster.await_idle(10)
            cluster.check_cached()
        assert cluster.text(STORY + "shy owl", 8)
        print("vanish: 64 clients went, everything was freed")


def small_kv(lab, args):
    """A cluster whose KV holds one sequence of the whole context and a bit, found by trying --memory."""
    low, high = 1 << 20, 512 << 20
    while True:
        memory = (low + high) // 2
        cluster = Cluster(lab, args.binaries, f"full-{memory}", ["--max-sequences", 8, "--context", 512],
                          ["--memory", memory])
        reason = cluster.part.await_alive("a plan", 60, lambda: next(
            (word for word in (cluster.status().get("state"), cluster.status().get("reason") or "")
             if word == "serving" or "memory" in word), None))
        if reason == "serving":
            cluster.await_serving()
        total = cluster.status()["kv_tokens_total"] if reason == "serving" else 0
        if 512 <= total <= 900:
            return cluster, total
        assert high - low > 4096, f"no --memory gives so little KV: {total} tokens at {memory}"
        low, high = (memory, high) if total < 512 else (low, memory)
        cluster.part.close()


def full(lab, args):
    """One long request beside others takes all KV: some are computed anew, none fails, and the text stays the same."""
    cluster, total = small_kv(lab, args)
    with cluster:
        jobs = [(STORY + "shy owl", 440)] + [(STORY + animal, 120) for animal in ANIMALS[1:]]
        alone = [cluster.text(*job) for job in jobs]
        for _ in range(2):
            with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
                together = list(pool.map(lambda job: cluster.text(*job), jobs))
            assert together == alone
        status, _, reply = cluster.post({"prompt": STORY * 60, "max_tokens": 500})
        assert status == 400, (status, reply)
        cluster.await_idle()
        cluster.check_cached()
        preemptions = int(re.search(r"^efedllm_preemptions_total (\d+)", labs.get(cluster.url + "/metrics"), re.MULTILINE)[1])
        assert preemptions > 0
        print(f"full: {len(jobs)} requests that want {sum(tokens for _, tokens in jobs)} tokens of KV shared {total}; {preemptions} times "
              "one made room")


def short_requests(cluster, count):
    def several(worker):
        connection = cluster.connect()
        for i in range(worker, count, 16):
            body = {"prompt": f"{STORY}{ANIMALS[i % 8]} number {i}", "max_tokens": 2 + i % 3, "ignore_eos": True}
            if i % 7 == 3:
                cluster.open_stream(body | {"max_tokens": 100}).close()
            elif i % 11 == 5:
                status, _, _ = cluster.post(body | {"max_tokens": -1}, connection)
                assert status == 400, status
            else:
                status, _, reply = cluster.post(body, connection)
                assert status == 200, (status, reply)
        connection.close()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(several, range(16)))


def flat(lab, args):
    """After many short requests of all kinds no process holds more than before."""
    with Cluster(lab, args.binaries, "flat", ["--max-sequences", 16]) as cluster:
        cluster.await_serving()
        short_requests(cluster, max(600, args.requests // 4))  # buffers and caches fill
        cluster.await_idle()
        time.sleep(3)  # idle connections go
        before, started = cluster.counts(), time.monotonic()
        short_requests(cluster, args.requests)
        seconds = time.monotonic() - started
        cluster.await_idle()
        time.sleep(3)
        after = cluster.counts()
        cluster.check_cached()
        for name, counts in after.items():
            print(f"flat: {name}: {before[name]} -> {counts}")
        for name, counts in after.items():
            assert counts["threads"] <= before[name]["threads"] + 2, name
            assert counts["fds"] <= before[name]["fds"] + 2, name
            assert counts["rss_kib"] <= before[name]["rss_kib"] * 1.05 + 4096, name
        print(f"flat: {args.requests} requests in {seconds:.0f} s")


CASES = {"burst": burst, "mute": mute, "vanish": vanish, "full": full, "flat": flat}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("cases", nargs="*", default=[*CASES])
    parser.add_argument("--requests", type=int, default=1000)
    args = parser.parse_intermixed_args()
    if unknown := set(args.cases) - set(CASES):
        parser.error(f"unknown cases {sorted(unknown)}: use {', '.join(CASES)}")
    for name in args.cases:
        with labs.Lab() as lab:
            CASES[name](lab, args)


if __name__ == "__main__":
    main()
