#!/usr/bin/env python3
"""A worker that flips one bit of each step is put out of a real cluster, by evidence that anybody can look at; the others are not, and go on.

  tests/e2e/cheat.py BIN_DIR [--cheat noise-bit]

BIN_DIR has efedllm-coord, efedllm-worker, efedllm-ctl and efedllm-worker-adversary; 77: not the last one
(-DEFEDLLM_BUILD_ADVERSARIES=ON). What ships must have nothing of it.
"""
import argparse
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "netem"))
import cheat_cluster  # noqa: E402
import lab as labs  # noqa: E402

MODEL = pathlib.Path(__file__).resolve().parents[2] / "models" / "seedling" / "seedling-q8_0.gguf"
SHIPPED = ("efedllm-coord", "efedllm-worker", "efedllm-ctl")
MARK = b"this worker cheats"
CHEAT = 1
CONTEXT = 512
LAYERS = 8


def check_shipped(binaries):
    assert MARK in cheat_cluster.adversary(binaries).read_bytes()
    for name in SHIPPED:
        assert MARK not in (binaries / name).read_bytes(), f"{name} can cheat"


def check_put_out(cluster, ids):
    changes = labs.wait_for("the cheat to be put out", 120, lambda: cluster.trust().get(ids[CHEAT]))
    assert changes[-1]["to"] == "evicted", changes
    labs.wait_for("the others to hold all layers", 60, lambda: sum(
        node["last_layer"] - node["first_layer"] for i, node in enumerate(cluster.nodes()) if node and i != CHEAT) == LAYERS)
    evidence = [one for one in cluster.evidence() if one["node"] == ids[CHEAT]]
    assert evidence, "there is no evidence"
    return changes[-1]["reason"], evidence[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("--cheat", default="noise-bit")
    args = parser.parse_args()
    if not cheat_cluster.adversary(args.binaries):
        print("SKIPPED: efedllm-worker-adversary is not built")
        sys.exit(77)
    check_shipped(args.binaries)
    model = cheat_cluster.inspect(args.binaries, MODEL)
    memory = cheat_cluster.memory_for_stages(model, 3, CONTEXT, "f32")
    with labs.Lab() as lab, cheat_cluster.CheatCluster(
            lab, args.binaries, MODEL, "cheat", [None, args.cheat, None, None], worker_flags=("--memory", memory),
            coordinator_flags=("--context", CONTEXT)) as cluster:
        ids = [node["node"] for node in cluster.await_chain()]
        with cheat_cluster.Load(cluster, 3, model["config"]["vocab"]) as load:
            reason, evidence = check_put_out(cluster, ids)
            served = load.requests
            labs.wait_for("the others to go on", 60, lambda: load.requests > served + 3)
        time.sleep(2)  # until the ledger has what follows
        trust, money = cluster.trust(), [cluster.statement(node) for node in ids]
        for i, node in enumerate(ids):
            assert i == CHEAT or {change["to"] for change in trust.get(node, [])} <= {"trusted"}, trust
            assert i == CHEAT or money[i]["voided_micros"] == money[i]["penalties_micros"] == 0, money[i]
        assert money[CHEAT]["posted_micros"] == money[CHEAT]["in_escrow_micros"] == 0 < money[CHEAT]["penalties_micros"], money[CHEAT]
        cluster.verify()
        print(f"{args.cheat}: {reason}; {evidence['summary']}; it has {-money[CHEAT]['penalties_micros']} micro-credits")


if __name__ == "__main__":
    main()
