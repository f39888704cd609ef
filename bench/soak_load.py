"""The mixed load of soak.py: clients of all kinds, and what they got."""
import collections
import contextlib
import random
import threading
import time

from fault_rounds import ANIMALS
from stream_clients import Stream, perform

GIVE_UP_SECONDS = 90     # of one request, over all its tries
BURST_EVERY_SECONDS = 15
BURST = 40
# How often which kind comes.
KINDS = {"stream": 5, "whole": 2, "prompt": 2, "cancel": 2, "hang-up": 1, "twice": 1, "again": 1}


class Load:
    """So many clients at once, each in a thread. A request that was refused with Retry-After, or whose connection broke because the
    coordinator died, is made again with the same idempotency key; every other failure, and every other text than the known one, is a
    problem."""

    @staticmethod
    def requests():
        """Streams of some length, short replies to long prompts, and a burst's: texts that one process alone can tell before."""
        bodies = []
        for i, animal in enumerate(ANIMALS):
            sampling = {"temperature": 0} if i % 2 == 0 else {"temperature": 0.8, "seed": i}
            common = {"ignore_eos": True, "stream": True, **sampling}
            bodies.append({"prompt": f"Once upon a time there was a {animal}", "max_tokens": 100 + 25 * (i % 8), **common})
            story = f"The {animal} met {' and '.join(ANIMALS[i % 5:][:9])}. " * 6
            bodies.append({"prompt": story[:1400], "max_tokens": 12, **common})
        return bodies

    def __init__(self, cluster, bodies, texts, clients, seed):
        self.cluster, self.bodies, self.texts, self.seed = cluster, bodies, texts, seed
        self.counts, self.by_kind = collections.Counter(), collections.defaultdict(collections.Counter)
        self.problems = collections.defaultdict(collections.Counter)
        self.lock, self.running, self.go, self.serial = threading.Lock(), True, threading.Event(), 0
        self.busy, self.coordinator_died, self.longest_gap = 0, [], 0.0
        self.threads = [threading.Thread(target=self._client, args=(i,), daemon=True) for i in range(clients)]
        self.threads.append(threading.Thread(target=self._bursts, daemon=True))

    def start(self):
        self.go.set()
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.running = False
        self.go.set()
        for thread in self.threads:
            thread.join(GIVE_UP_SECONDS)

    @contextlib.contextmanager
    def paused(self):
        """All requests have ended, and no new one begins."""
        self.go.clear()
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while self.busy and time.monotonic() < deadline:
            time.sleep(0.05)
        yield
        self.go.set()

    @contextlib.contextmanager
    def tolerating(self, coordinator_dies):
        """Connections may break while this is on, if the coordinator dies."""
        if not coordinator_dies:
            yield
            return
        self.coordinator_died.append([time.monotonic(), float("inf")])
        try:
            yield
        finally:
            self.coordinator_died[-1][1] = time.monotonic()

    def _died_since(self, began):
        return any(end >= began for _, end in self.coordinator_died)

    def _count(self, kind, verdict, problem=""):
        with self.lock:
            self.counts[verdict] += 1
            self.by_kind[kind][verdict] += 1
            if problem:
                self.problems[verdict][f"{kind}: {problem[:300]}"] += 1

    def _key(self):
        with self.lock:
            self.serial += 1
            return f"soak-{self.seed}-{self.serial}"

    @contextlib.contextmanager
    def _turn(self):
        while True:
            self.go.wait()
            with self.lock:
                if self.go.is_set():
                    self.busy += 1
                    break
        try:
            yield
        finally:
            with self.lock:
                self.busy -= 1

    def _client(self, number):
        rng = random.Random(f"{self.seed}-{number}")
        while self.running:
            with self._turn():
                if not self.running:
                    return
                kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
                at = 2 * rng.randrange(len(self.bodies) // 2) + (kind == "prompt")
                try:
                    self._ask(kind, at, rng)
                except Exception as failure:  # of this script: it shall not pass for silence
                    self._count(kind, "broken script", repr(failure))
            time.sleep(rng.uniform(0, 0.05))

    def _ask(self, kind, at, rng):
        if kind in ("cancel", "hang-up"):
            stream = perform(Stream(self.bodies[at]), self.cluster, rng.randint(1, 40) if kind == "cancel" else 0, rng.random() < 0.5)
            self._note_gaps(stream)
            wrong = not self.texts[at].startswith(stream.text)
            self._count(kind, "changed" if wrong else "gone", f"{stream.text!r}" if wrong else "")
        elif kind == "twice":
            key = self._key()
            other = threading.Thread(target=self._until_served, args=(kind, at, rng, key))
            other.start()
            self._until_served(kind, at, rng, key)
            other.join()
        elif kind == "again":
            key = self._key()
            perform(Stream(self.bodies[at], {"Idempotency-Key": key}), self.cluster, rng.randint(1, 40), rng.random() < 0.5)
            self._until_served(kind, at, rng, key)
        else:
            self._until_served(kind, at, rng, self._key())

    def _note_gaps(self, stream):
        self.longest_gap = max([self.longest_gap, *(gap for _, gap in stream.gaps())])

    def _until_served(self, kind, at, rng, key):
        """Makes the request until there is a reply; says what came of it."""
        began, text = time.monotonic(), self.texts[at]
        body = self.bodies[at] if kind != "whole" else self.bodies[at] | {"stream": False}
        while True:
            tried = time.monotonic()
            stream = perform(Stream(body, {"Idempotency-Key": key}), self.cluster)
            self._note_gaps(stream)
            said = f"{stream.status} {stream.error}"
            if not text.startswith(stream.text) or (not stream.failed and stream.text != text):
                self._count(kind, "changed", f"{stream.text!r} and not {text!r}")
                return
            if not stream.failed:
                self._count(kind, "fine")
                return
            refused = stream.status in (429, 503) and "retry-after" in stream.reply_headers
            broken = (stream.status == 0 or stream.text or not stream.clean) and self._died_since(tried)
            if not refused and not broken:
                self._count(kind, "failed", said)
                return
            self._count(kind, f"refused with {stream.status}" if refused else "broken by the coordinator's end")
            if time.monotonic() - began > GIVE_UP_SECONDS or not self.running:
                self._count(kind, "failed", f"given up after {time.monotonic() - began:.0f} s: {said}")
                return
            time.sleep(rng.uniform(0.1, 0.5))

    def _bursts(self):
        """More at once than there is room for, from time to time: they are served, or told to come back."""
        rng = random.Random(f"{self.seed}-bursts")
        while self.running:
            time.sleep(min(BURST_EVERY_SECONDS, 1 + rng.random() * 2 * BURST_EVERY_SECONDS) if self.running else 0)
            with self._turn():
                threads = [threading.Thread(target=self._burst_request, args=(2 * rng.randrange(len(self.bodies) // 2) + 1,))
                           for _ in range(BURST)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()

    def _burst_request(self, at):
        tried = time.monotonic()
        stream = perform(Stream(self.bodies[at]), self.cluster)
        if not stream.failed and stream.text == self.texts[at]:
            self._count("burst", "fine")
        elif not self.texts[at].startswith(stream.text) or not stream.failed:
            self._count("burst", "changed", f"{stream.text!r}")
        elif stream.status in (429, 503) and "retry-after" in stream.reply_headers:
            self._count("burst", f"refused with {stream.status}")
        elif self._died_since(tried):
            self._count("burst", "broken by the coordinator's end")
        else:
            self._count("burst", "failed", f"{stream.status} {stream.error}")
