"""Rounds of one fault among running streams, and what the clients saw of it."""
import contextlib
import datetime
import random
import re
import statistics
import time

import faults
import lab as labs
from fault_cluster import FaultCluster
from stream_clients import Stream, StreamClients

STREAMS = 8
ANIMALS = ["shy owl", "red fox", "small bear", "brave mouse", "lazy cat", "young wolf", "proud goose", "green frog", "old crow",
           "tiny ant", "white horse", "sad whale", "quick hare", "fat hen", "calm snail", "clever pig"]
LOG_TIME = re.compile(r"^(\d\d):(\d\d):(\d\d)\.(\d{3}) (?:warning|warn|error)", re.MULTILINE)


def bodies(tokens):
    """Requests of all kinds whose text is known: greedy ones, and sampled ones with a seed."""
    requests = []
    for i, animal in enumerate(ANIMALS):
        sampling = {"temperature": 0} if i % 2 == 0 else {"temperature": 0.8, "seed": i}
        requests.append({"prompt": f"Once upon a time there was a {animal}", "max_tokens": tokens, "ignore_eos": True, "stream": True,
                         **sampling})
    return requests


def expected_texts(lab, binaries, model, requests, coordinator_flags=()):
    """What one process alone answers, without any worker."""
    with FaultCluster(lab, binaries, model, workers=0, standby=0, coordinator_flags=coordinator_flags) as alone:
        alone.await_http(300)
        waiting = [Stream(body) for body in reversed(requests)]
        with StreamClients(alone, STREAMS, lambda i: waiting.pop() if waiting else None) as clients:
            pass
        by_body = {id(stream.body): stream for stream in clients.streams}
        texts = [by_body[id(body)] for body in requests]
        for stream in texts:
            if stream.failed:
                raise labs.Failure(f"without faults: {stream.status} {stream.error}")
        return [stream.text for stream in texts]


@contextlib.contextmanager
def cluster_for(lab, binaries, model, fault, **more):
    """A FaultCluster that can have this fault, serving; and its shape."""
    with contextlib.ExitStack() as stack:
        if fault.disks:
            more["worker_folders"] = [stack.enter_context(faults.small_disk(lab)) for _ in range(more.get("workers", 4))]
        if fault.clocks:
            more["clock_shim"] = faults.clock_shim(binaries)
        cluster = stack.enter_context(FaultCluster(lab, binaries, model, links=fault.links, **more))
        cluster.await_http(300)
        _, shape = cluster.await_healed()
        yield cluster, shape


def pause_of(stream, at):
    """The longest wait for the next text that ended after the fault, less the usual one; None: it was over before."""
    later = [gap for end, gap in stream.gaps() if end > at]
    if not later:
        return None
    usual = [gap for end, gap in stream.gaps()[1:] if end <= at]
    return max(0.0, max(later) - (statistics.median(usual) if usual else 0.0))


def detected_after(log, at_wall):
    """Seconds until the coordinator's first warning; None: there was none."""
    struck = datetime.datetime.fromtimestamp(at_wall)
    for match in LOG_TIME.finditer(log):
        hour, minute, second, millis = map(int, match.groups())
        logged = struck.replace(hour=hour, minute=minute, second=second, microsecond=1000 * millis)
        after = (logged - struck).total_seconds()
        if after >= -0.001:
            return max(0.0, after)
    return None


class Rounds:
    """Puts one cluster to one kind of fault, again and again."""

    def __init__(self, cluster, shape, name, requests, texts, seed):
        self.cluster, self.shape, self.name, self.fault = cluster, shape, name, faults.FAULTS[name]
        self.requests, self.texts, self.rng, self.count = requests, texts, random.Random(seed), 0
        self.tokens = requests[0]["max_tokens"]

    def _verdict(self, stream):
        """("fine" | "failed" | "refused" | "changed", its expected text)"""
        text = self.texts[next(i for i, body in enumerate(self.requests) if body is stream.body)]
        if not text.startswith(stream.text) or (not stream.failed and stream.text != text):
            return "changed"
        if stream.status in (429, 503) and "retry-after" in stream.reply_headers and not stream.text:
            return "refused"
        return "failed" if stream.failed else "fine"

    def _next_stream(self, i):
        """Of client i: its first request; again what failed, with the same key, where a fault may end streams; and the next as long as
        the fault lasts, where it is to meet new requests too."""
        last = self.last.get(i)
        if last is None:
            body = self.chosen[i]
        elif last.failed and self.fault.may_fail and self.tries < 2000:
            self.tries += 1
            if last.status:
                time.sleep(0.02)
            body = last.body
        elif not last.failed and self.fault.loops and not self.undone:
            body = self.rng.choice(self.requests)
        else:
            return None
        fresh = last is None or not last.failed
        key = f"{self.name}-{self.count}-{i}-{time.monotonic_ns()}" if fresh else last.headers["Idempotency-Key"]
        self.last[i] = Stream(body, {"Idempotency-Key": key})
        return self.last[i]

    def run(self):
        """One round; what happened."""
        self.count += 1
        cluster, injection = self.cluster, faults.Injection()
        self.chosen, self.last, self.undone, self.tries = self.rng.sample(self.requests, STREAMS), {}, False, 0
        log_start = cluster.log_size(cluster.coordinator)
        epoch = cluster.status()["epoch"]
        with contextlib.ExitStack() as stack:
            clients = stack.enter_context(StreamClients(cluster, STREAMS, self._next_stream))
            try:
                clients.await_texts(self.rng.randint(5, self.tokens // 4))
                stack.enter_context(self.fault.inject(cluster, self.rng, injection))
            finally:
                self.undone = True
            clients.join()
        healed, _ = cluster.await_healed(self.shape)
        return self._result(clients.streams, injection, log_start, epoch, healed)

    def _result(self, streams, injection, log_start, epoch, healed):
        verdicts = [self._verdict(stream) for stream in streams]
        final = {}  # by client and request, the last try
        for stream, verdict in zip(streams, verdicts):
            final[stream.headers["Idempotency-Key"]] = (stream, verdict)
        pauses = self._pauses(streams, injection.at)
        errors = sorted({f"{stream.status} {stream.error}"[:300] for stream, verdict in zip(streams, verdicts) if verdict != "fine"})
        return {
            "fault": self.name, "what": injection.what, "streams": len(final), "tries": len(streams),
            "failed": sum(verdict in ("failed", "refused") for _, verdict in final.values()),
            "refused": verdicts.count("refused"), "broken": verdicts.count("failed"), "changed": verdicts.count("changed"),
            "pauses": pauses, "detected": detected_after(self.cluster.log(self.cluster.coordinator, log_start), injection.at_wall),
            "healed": healed, "epochs": self.cluster.status()["epoch"] - epoch, "errors": errors, **injection.facts}

    def _pauses(self, streams, at):
        """By request: over all of its tries, from the last text of one to the first of the next."""
        by_key = {}
        for stream in streams:
            by_key.setdefault(stream.headers["Idempotency-Key"], []).append(stream)
        pauses = []
        for tries in by_key.values():
            whole = Stream(tries[0].body, times=[moment for k, stream in enumerate(tries)
                                                 for moment in (stream.times if k == 0 else stream.times[1:])])
            pause = pause_of(whole, at)
            if pause is not None:
                pauses.append(pause)
        return pauses
