#!/usr/bin/env python3
"""Kills the coordinator of a cluster under load, again and again, and holds its ledger against what it said before.

  tests/e2e/ledger_kills.py BIN_DIR [--rounds 4]

BIN_DIR has efedllm-coord, efedllm-worker and efedllm-ctl. After each kill -9 the ledger proves itself, with the log that the killed one left
beside it; every entry that efedllm-ctl showed before the kill is there, with the same number and hash; no key is there twice; no work is
paid twice. In the end a copy is proven byte by byte, and so is that the ledger continues each head that was signed on the way.
"""
import argparse
import collections
import json
import pathlib
import random
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "netem"))
import lab as labs  # noqa: E402
import restarts  # noqa: E402

# All work is audited and paid at once, so that there are posts to lose.
RULES = """[audit]
floor = 1.0
recheck = 1.0
[penalty]
least = 1.0
margin = 1.0
[escrow]
seconds = 0
chunks = 1
"""
LATEST = 400  # entries that are asked for before a kill


class Cluster(restarts.Cluster):
    def __init__(self, lab, args):
        rules = lab.folder / "rules.toml"
        rules.write_text(RULES)
        labs.Cluster.__init__(self, lab, args.binaries, restarts.MODEL, "ledger", workers=args.workers,
                              coordinator_flags=["--layout", "chain", "--incentive-rules", rules])
        self.starts = 0

    def ledger(self, *words):
        """JSON of an efedllm-ctl ledger command, which must succeed."""
        done = subprocess.run([self.binaries / "efedllm-ctl", "ledger", *words, "--json"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"ledger {' '.join(map(str, words))}: {done.stderr}"
        return json.loads(done.stdout)

    def show(self, count):
        return self.ledger("show", "--state-dir", self.state, "-n", str(count))


def await_posts(cluster, known):
    """Until work was paid that was not before."""
    def posted():
        posts = cluster.ledger("show", "--state-dir", cluster.state, "-n", "1", "--kind", "post")
        return posts and posts[-1]["number"] not in known and posts
    labs.wait_for("work to be paid", 60, posted, poll=0.05)


def check_ledger(cluster, known):
    """After a kill, with nobody who writes."""
    facts = cluster.ledger("verify", "--state-dir", cluster.state)
    assert facts["ok"] and facts["entries"] >= max(known, default=0), facts
    last = {entry["number"]: entry for entry in cluster.show(LATEST * 2)}
    for number, entry in known.items():
        if number >= min(last):
            assert last.get(number) == entry, f"entry {number} was {entry} and is {last.get(number)}"
    return facts


def check_all(cluster, known):
    """The whole ledger, at the end."""
    entries = cluster.show(1 << 20)
    by_number = {entry["number"]: entry for entry in entries}
    lost = [number for number, entry in known.items() if by_number.get(number) != entry]
    assert not lost, f"entries {lost[:5]} are not what they were"
    assert [entry["number"] for entry in entries] == list(range(1, len(entries) + 1))
    keys = collections.Counter(entry["key"] for entry in entries)
    assert max(keys.values()) == 1, keys.most_common(3)
    resolved = collections.Counter(entry["about"] for entry in entries if entry["kind"] in ("post", "void"))
    assert max(resolved.values()) == 1, f"paid twice: {resolved.most_common(3)}"
    pending = {entry["key"] for entry in entries if entry["kind"] == "pending"}
    assert set(resolved) <= pending
    return collections.Counter(entry["kind"] for entry in entries)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    known, heads = {}, []
    with labs.Lab() as lab, Cluster(lab, args) as cluster:
        for number in range(args.rounds):
            cluster.await_healthy(300)
            with cluster.load():
                await_posts(cluster, known)
                time.sleep(random.uniform(0, 1.5))
                known.update((entry["number"], entry) for entry in cluster.show(LATEST))
                heads.append(cluster.ledger("head", "--state-dir", cluster.state))
                time.sleep(random.uniform(0, 0.1))
                cluster.kill_coordinator()
                facts = check_ledger(cluster, known)
                cluster.start_coordinator()
            print(f"round {number + 1}: {facts['entries']} entries, {facts['signed_heads']} heads; proven", flush=True)
        cluster.await_healthy()
        kinds = check_all(cluster, known)
        copy, kept = lab.folder / "copy.db", lab.folder / "heads.jsonl"
        kept.write_text("".join(json.dumps(head) + "\n" for head in heads))
        cluster.ledger("backup", "--state-dir", cluster.state, "--out", copy)
        facts = cluster.ledger("verify", "--file", copy, "--heads", kept)
        assert facts["all_bytes_checked"] and facts["kept_heads"] == len(heads), facts
        print(f"{args.rounds} kills: {facts['entries']} entries ({dict(kinds)}); none lost, none twice; continues {len(heads)} heads")


if __name__ == "__main__":
    main()
