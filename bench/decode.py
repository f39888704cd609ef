#!/usr/bin/env python3
"""Decode speed of a running OpenAI-compatible endpoint: tokens a second of one greedy stream, after its first token.

  decode.py http://127.0.0.1:8080 [--tokens 64] [--runs 3]
"""
import argparse
import json
import statistics
import time
import urllib.request


def tokens_per_second(url, tokens):
    body = {"prompt": [1, 5, 9, 100, 200, 300, 400, 500], "max_tokens": tokens, "ignore_eos": True, "temperature": 0,
            "stream": True}
    request = urllib.request.Request(url.rstrip("/") + "/v1/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    times = []
    with urllib.request.urlopen(request, timeout=600) as reply:
        for line in reply:
            if line.startswith(b"data: {"):
                times.append(time.monotonic())
    return (len(times) - 1) / (times[-1] - times[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    samples = [tokens_per_second(args.url, args.tokens) for _ in range(args.runs)]
    print(json.dumps({"median": round(statistics.median(samples), 2), "samples": [round(s, 2) for s in samples]}))


if __name__ == "__main__":
    main()
