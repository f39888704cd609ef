#!/usr/bin/env python3
"""Streams completions from an OpenAI-compatible server and tells when the tokens came.

  streams.py URL JSON

JSON is a list of requests that start together, or so many seconds later: {"prompt": tokens or text, "n": tokens to generate,
"after": seconds, "until": seconds, "extra": {...}}. With "until" the request is made anew as long as this time is not reached. Prints
one JSON list: for each (its last time) "begun", "times" of its events since then, in seconds, and the server's "usage"; or "error".
"""
import http.client
import json
import sys
import threading
import time
import urllib.parse


def stream(url, request, start, result):
    time.sleep(max(0, start + request.get("after", 0) - time.monotonic()))
    try:
        complete(url, request, start, result)
        while "error" not in result and time.monotonic() - start < request.get("until", 0):
            complete(url, request, start, result)
    except (OSError, http.client.HTTPException, ValueError) as failure:
        result["error"] = str(failure)


def complete(url, request, start, result):
    body = {"prompt": request["prompt"], "max_tokens": request["n"], "temperature": 0, "ignore_eos": True, "stream": True,
            "stream_options": {"include_usage": True}} | request.get("extra", {})
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=900)
    begun = time.monotonic()
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        result["error"] = f"{response.status}: {response.read(500)!r}"
        return
    times, usage = [], {}
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        now = time.monotonic() - begun
        event = json.loads(line[6:])
        if "error" in event:
            result["error"] = str(event["error"])
            return
        usage = event.get("usage") or usage
        if event.get("choices"):
            times.append(now)
    result.update(begun=begun - start, times=times, usage=usage)


def run(url, requests):
    results = [{} for _ in requests]
    start = time.monotonic()
    threads = [threading.Thread(target=stream, args=(url, request, start, result)) for request, result in zip(requests, results)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if not result.get("times"):
            result.setdefault("error", "no answer")
    return results


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], json.load(sys.stdin) if sys.argv[2] == "-" else json.loads(sys.argv[2]))))
