#!/usr/bin/env python3
"""A cluster over slow links: the text is that of a fast one, the links are measured, and a link that becomes slow while a request runs
does not fail it.

  tests/e2e/slow_links.py BIN_DIR

BIN_DIR has efedllm-coord, efedllm-worker, efedllm-ctl and linkem. 77: skipped, because links can't be emulated here.
"""
import json
import pathlib
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "netem"))
import lab as labs  # noqa: E402

MODEL = pathlib.Path(__file__).resolve().parents[2] / "models" / "seedling" / "seedling-q8_0.gguf"
PROMPT = "Once upon a time there was a shy owl"
RATE_MBIT = 50
DELAY_MICROS = 20_000
POST = """
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], sys.argv[2].encode(), {"Content-Type": "application/json"})
sys.stdout.write(urllib.request.urlopen(request, timeout=120).read().decode())
"""


def complete(cluster, tokens):
    body = {"prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "speculation": False}
    done = subprocess.run([*labs.inside(cluster.client_netns), sys.executable, "-c", POST, cluster.url + "/v1/completions",
                           json.dumps(body)], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)["choices"][0]["text"]


def main():
    binaries = pathlib.Path(sys.argv[1])
    if why := labs.can_emulate_links():
        print(f"SKIPPED: {why}")
        sys.exit(77)
    with labs.Lab() as lab:
        with labs.Cluster(lab, binaries, MODEL, "fast") as fast:
            fast.await_serving()
            expected = complete(fast, 150)
        with labs.emulate_links(lab, binaries / "linkem", 3, RATE_MBIT, DELAY_MICROS) as links:
            with labs.Cluster(lab, binaries, MODEL, "slow", netns=links.names) as slow:
                slow.await_serving()
                assert complete(slow, 150) == expected
                texts = []
                running = threading.Thread(target=lambda: texts.append(complete(slow, 150)))
                running.start()
                time.sleep(0.02)
                links.slow_down()
                running.join()
                assert texts == [expected], texts
                slow.await_serving()
                started = time.monotonic()
                assert expected.startswith(complete(slow, 10))
                # Each token passes at least two links one after the other.
                assert time.monotonic() - started > 10 * 2 * DELAY_MICROS / 1e6
            with labs.Cluster(lab, binaries, MODEL, "slow", netns=links.names) as slow:
                slow.await_serving()
                slow.part.await_alive("all links to be measured", 60, lambda: len(slow.ctl("plan", "--explain")["links"]) == 6)
                for link in slow.ctl("plan", "--explain")["links"]:
                    assert 2 * DELAY_MICROS < 1e3 * link["rtt_millis"] < 4 * DELAY_MICROS, link
                    assert RATE_MBIT / 2 < 8e-6 * link["bytes_per_second"] < RATE_MBIT, link
                assert expected.startswith(complete(slow, 50))
    print("the text is the same over slow links")


if __name__ == "__main__":
    main()
