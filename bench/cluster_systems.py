"""The two systems that cluster_bench.py compares, started on this machine and asked to work."""
import json
import pathlib
import random
import shlex
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "netem"))
import lab as labs  # noqa: E402

STREAMS = pathlib.Path(__file__).with_name("streams.py")
START_SECONDS = 300


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def inside(netns):
    return ["ip", "netns", "exec", netns] if netns else []


def vocabulary(args, model):
    """How many tokens the model knows."""
    done = subprocess.run([args.bin / "efedllm-ctl", "model", "inspect", "--model", model, "--json"], stdout=subprocess.PIPE, text=True,
                          check=True)
    return json.loads(done.stdout)["config"]["vocab"]


class HttpSystem:
    """Something that serves completions at self.url, seen from the namespace self.client_netns; self.vocab: its tokens."""

    def tokens(self, count):
        """No prefix that was seen before."""
        return [random.randrange(self.vocab // 2, self.vocab) for _ in range(count)]

    def complete(self, requests):
        done = subprocess.run([*inside(self.client_netns), sys.executable, "-B", STREAMS, self.url, "-"], input=json.dumps(requests),
                              stdout=subprocess.PIPE, text=True, check=True)
        results = json.loads(done.stdout)
        for result in results:
            if "error" in result:
                raise labs.Failure(f"{self.url}: {result['error']}")
        return results

    def answers(self, path):
        """The body, or None."""
        code = ("import sys, urllib.request\n"
                "sys.stdout.write(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())")
        done = subprocess.run([*inside(self.client_netns), sys.executable, "-c", code, self.url + path], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True, check=False)
        return done.stdout if done.returncode == 0 else None

    def first_token(self, prompt_tokens):
        return self.complete([{"prompt": self.tokens(prompt_tokens), "n": 2}])[0]["times"][0]

    def prefill(self, tokens):
        return tokens / self.first_token(tokens)

    def streams(self, count, tokens, **extra):
        """Tokens/s of all streams together, while all of them decode."""
        results = self.complete([{"prompt": self.tokens(8), "n": tokens, "extra": extra} for _ in range(count)])
        begin = max(r["begun"] + r["times"][0] for r in results)
        end = min(r["begun"] + r["times"][-1] for r in results)
        if end <= begin:
            raise labs.Failure("the streams did not overlap: use more tokens")
        generated = 0
        for r in results:
            within = sum(begin < r["begun"] + moment <= end for moment in r["times"])
            generated += within * (tokens / len(r["times"]))  # an event may bring several tokens
        return generated / (end - begin)


class Ours(HttpSystem):
    """A coordinator and workers of one thread each; a context manager. netns: the coordinator's namespace and the workers'."""

    def __init__(self, lab, args, model, workers, threads=1, netns=(), cgroups=(), label=""):
        self.args, self.part, self.vocab = args, lab.subset(), vocabulary(args, model)
        self.client_netns = netns[0] if netns else None
        host = "10.77.0.1" if netns else "127.0.0.1"
        name = f"{model.stem}-{label or 'plain'}-{workers}"
        self.state = lab.folder / f"{name}-coordinator"
        grpc, http = free_port(), free_port()
        self.url = f"http://{host}:{http}"
        (self.state / "join-token").unlink(missing_ok=True)
        try:
            self.part.start(f"{name}-coordinator", [
                args.bin / "efedllm-coord", "--model", model, "--listen", f"{host}:{grpc}", "--http", f"{host}:{http}", "--state-dir",
                self.state, "--min-workers", workers, "--threads", threads, *shlex.split(args.coordinator_flags)], self.client_netns)
            token = self.part.await_alive("a join token", START_SECONDS, lambda: (self.state / "join-token").exists()
                                          and (self.state / "join-token").read_text().strip())
            for i in range(workers):
                self.part.start(f"{name}-worker-{i}", [
                    args.bin / "efedllm-worker", "--join", f"{host}:{grpc}", "--token", token, "--state-dir",
                    lab.folder / f"{name}-worker-{i}", "--name", f"worker-{i}", "--threads", 1], netns[i + 1] if netns else None,
                    cgroups[i] if cgroups else None)
            self.part.await_alive("the cluster to serve", START_SECONDS, lambda: self.answers("/health"))
            self.complete([{"prompt": self.tokens(8), "n": 8}] * 2)  # pages are touched, connections are open
        except BaseException:
            self.part.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.part.close()

    def ctl(self, *words):
        done = subprocess.run([self.args.bin / "efedllm-ctl", *words, "--state-dir", self.state, "--json"], stdout=subprocess.PIPE,
                              text=True, check=True)
        return json.loads(done.stdout)

    def repeating(self, tokens):
        """Tokens/s of one stream whose text repeats itself: what the n-gram lookup is for."""
        phrase = self.tokens(12)
        bias = {"logit_bias": {str(token): 4 for token in phrase}}
        result = self.complete([{"prompt": phrase * 8, "n": tokens, "extra": bias}])[0]
        return (tokens - 1) / (result["times"][-1] - result["times"][0])

    def busy(self, count, tokens):
        """The share of the time that each stage computed, while so many streams decode."""
        def computed():
            nodes = sorted(self.ctl("status")["nodes"], key=lambda node: node["first_layer"])
            return [node["steps"] * node["compute_millis_per_step"] / 1e3 for node in nodes]
        requests = [{"prompt": self.tokens(8), "n": tokens, "until": 9} for _ in range(count)]
        client = subprocess.Popen([*inside(self.client_netns), sys.executable, "-B", STREAMS, self.url, json.dumps(requests)],
                                  stdout=subprocess.DEVNULL)
        time.sleep(2)
        before, started = computed(), time.monotonic()
        time.sleep(6)  # heartbeats bring the counters once a second
        after, seconds = computed(), time.monotonic() - started
        client.wait()
        return [(b - a) / seconds for a, b in zip(before, after)]

    def prompt_among_streams(self, count, tokens, prompt_tokens):
        """Gaps between tokens of running streams while a prompt is computed, and how long that took."""
        requests = [{"prompt": self.tokens(8), "n": tokens} for _ in range(count)]
        requests.append({"prompt": self.tokens(prompt_tokens), "n": 2, "after": 3})
        *streams, prompt = self.complete(requests)
        begin, end = prompt["begun"], prompt["begun"] + prompt["times"][0]
        gaps = []
        for stream in streams:
            moments = [stream["begun"] + moment for moment in stream["times"]]
            gaps += [b - a for a, b in zip(moments, moments[1:]) if b > begin and a < end]
        gaps.sort()
        if len(gaps) < count:
            raise labs.Failure("the streams ended before the prompt came: use more tokens")
        return {"median": statistics.median(gaps), "p99": gaps[min(len(gaps) - 1, int(0.99 * len(gaps)))], "most": gaps[-1],
                "prompt": prompt["times"][0]}

    def same_prefix_twice(self, tokens):
        """Seconds until the first token of a new prompt, and of one that shares all but its end."""
        prefix = self.tokens(tokens)
        return tuple(self.complete([{"prompt": prefix + self.tokens(4), "n": 2}])[0]["times"][0] for _ in range(2))

    def predicted(self, streams):
        """What the plan says of so many streams, tokens/s; None where it says nothing."""
        try:
            return self.ctl("plan", "--explain", "--streams", str(streams)).get("tokens_per_second")
        except subprocess.CalledProcessError:
            return None


class Rpc:
    """llama-bench over RPC servers of one thread each."""

    def __init__(self, lab, args, model, servers, netns=()):
        self.args, self.part = args, lab.subset()
        self.model = f"{args.theirs_dir}/{model.name}" if args.theirs_dir else model
        self.client_netns = netns[0] if netns else None
        self.servers = []
        for i in range(servers):
            host, port = f"10.77.0.{i + 2}" if netns else "127.0.0.1", free_port()
            space = netns[i + 1] if netns else None
            self.part.start(f"rpc-{port}", [*shlex.split(args.rpc_server), "-H", host, "-p", port, "-t", 1], space)
            self.part.await_alive("an RPC server", 30, lambda: self._connects(host, port))
            self.servers.append(f"{host}:{port}")

    def _connects(self, host, port):
        code = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)"
        return subprocess.run([*inside(self.client_netns), sys.executable, "-c", code, host, str(port)], stderr=subprocess.DEVNULL,
                              check=False).returncode == 0

    def bench(self, prompt, generate):
        command = [*shlex.split(self.args.llama_bench), "-m", self.model, "-t", "1", "-r", "1", "-o", "jsonl",
                   "--rpc", ",".join(self.servers), "-ngl", "99", "-p", str(prompt), "-n", str(generate)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode != 0 or not lines:
            raise labs.Failure(f"{shlex.join(map(str, command))} failed:\n{done.stderr[-2000:]}")
        return json.loads(lines[-1])["samples_ts"][0]

    def prefill(self, tokens):
        return self.bench(tokens, 0)

    def decode(self, tokens):
        return self.bench(0, tokens)

    def close(self):
        self.part.close()


class RpcServer(HttpSystem):
    """llama-server over RPC servers of one thread each."""

    def __init__(self, lab, args, model, servers, netns=()):
        self.vocab = vocabulary(args, model)
        self.rpc = Rpc(lab, args, model, servers, netns)
        self.client_netns = self.rpc.client_netns
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.rpc.part.start(f"llama-server-{port}", [
            *shlex.split(args.llama_server), "-m", self.rpc.model, "-t", 1, "--rpc", ",".join(self.rpc.servers), "-ngl", 99, "--parallel",
            8, "-c", 8192, "--host", "127.0.0.1", "--port", port], self.client_netns)
        self.rpc.part.await_alive("llama-server", START_SECONDS, lambda: self.answers("/health"))
        self.complete([{"prompt": self.tokens(8), "n": 8}] * 2)

    def close(self):
        self.rpc.close()
