"""The two systems that cluster_bench.py compares, started on this machine and asked to work."""
import json
import pathlib
import random
import re
import shlex
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "netem"))
import lab as labs  # noqa: E402

STREAMS = pathlib.Path(__file__).with_name("streams.py")
START_SECONDS = 300


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
        done = subprocess.run([*labs.inside(self.client_netns), sys.executable, "-B", STREAMS, self.url, "-"], input=json.dumps(requests),
                              stdout=subprocess.PIPE, text=True, check=True)
        results = json.loads(done.stdout)
        for result in results:
            if "error" in result:
                raise labs.Failure(f"{self.url}: {result['error']}")
        return results

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
            spans = ", ".join(f"{r['begun'] + r['times'][0] - begin:.2f} to {r['begun'] + r['times'][-1] - begin:.2f}" for r in results)
            raise labs.Failure(f"the streams did not overlap: use more tokens; they ran from {spans} s")
        generated = 0
        for r in results:
            within = sum(begin < r["begun"] + moment <= end for moment in r["times"])
            generated += within * (tokens / len(r["times"]))  # an event may bring several tokens
        return generated / (end - begin)


class Ours(labs.Cluster, HttpSystem):
    """A cluster that serves, its weights in place."""

    def __init__(self, lab, args, model, workers, label="plain", **more):
        self.vocab = vocabulary(args, model)
        super().__init__(lab, args.bin, model, f"{model.stem}-{label}-{workers}", workers,
                         coordinator_flags=shlex.split(args.coordinator_flags), **more)
        try:
            self.await_serving()
            self.complete([{"prompt": self.tokens(8), "n": 8}] * 2)  # pages are touched, connections are open
        except BaseException:
            self.part.close()
            raise

    def repeating(self, tokens):
        """Tokens/s of one stream whose text repeats itself, which the n-gram lookup is for: a bias makes it one word."""
        word = self.tokens(1)
        result = self.complete([{"prompt": word * 16, "n": tokens, "extra": {"logit_bias": {str(word[0]): 100}}}])[0]
        return (tokens - 1) / (result["times"][-1] - result["times"][0])

    def busy(self, count, tokens):
        """The share of ten seconds in which each stage computed, while so many streams decode."""
        requests = [{"prompt": self.tokens(8), "n": tokens, "until": 13} for _ in range(count)]
        client = subprocess.Popen([*labs.inside(self.client_netns), sys.executable, "-B", STREAMS, self.url, json.dumps(requests)],
                                  stdout=subprocess.DEVNULL)
        time.sleep(12.5)
        metrics = labs.get(self.url + "/metrics", self.client_netns)
        client.wait()
        return [float(value) for value in re.findall(r"^efedllm_stage_busy_ratio\{.*\} (\S+)$", metrics, re.MULTILINE)]

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

    def predicted(self):
        """The plan's own word: (streams at once, tokens/s of all of them)."""
        plan = self.ctl("plan", "--explain")
        return plan["streams"], plan["predicted"]["all_streams"]


class Rpc:
    """llama-bench over RPC servers of one thread each."""

    def __init__(self, lab, args, model, servers, netns=()):
        self.args, self.part = args, lab.subset()
        self.model = f"{args.theirs_dir}/{model.name}" if args.theirs_dir else model
        self.client_netns = netns[0] if netns else None
        self.servers = []
        for i in range(servers):
            host, port = f"10.77.0.{i + 2}" if netns else "127.0.0.1", labs.free_port()
            space = netns[i + 1] if netns else None
            self.part.start(f"rpc-{port}", [*shlex.split(args.rpc_server), "-H", host, "-p", port, "-t", 1], space)
            self.part.await_alive("an RPC server", 30, lambda: self._connects(host, port))
            self.servers.append(f"{host}:{port}")

    def _connects(self, host, port):
        code = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)"
        return subprocess.run([*labs.inside(self.client_netns), sys.executable, "-c", code, host, str(port)], stderr=subprocess.DEVNULL,
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
        port = labs.free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.rpc.part.start(f"llama-server-{port}", [
            *shlex.split(args.llama_server), "-m", self.rpc.model, "-t", 1, "--rpc", ",".join(self.rpc.servers), "-ngl", 99, "--parallel",
            8, "-c", 8192, "--host", "127.0.0.1", "--port", port], self.client_netns)
        self.rpc.part.await_alive("llama-server", START_SECONDS, lambda: labs.get(self.url + "/health", self.client_netns))
        self.complete([{"prompt": self.tokens(8), "n": 8}] * 2)

    def close(self):
        self.rpc.close()
