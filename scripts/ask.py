#!/usr/bin/env python3
"""Asks an OpenAI-compatible server one question and prints the answer while it comes.

  ask.py http://127.0.0.1:8080 "Tell me a story about a fox named Milo." [API_KEY]
"""
import json
import sys
import urllib.error
import urllib.request


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    url, question = sys.argv[1:3]
    body = {"messages": [{"role": "user", "content": question}], "stream": True, "temperature": 0, "max_tokens": 300}
    headers = {"Content-Type": "application/json"}
    if len(sys.argv) == 4:
        headers["Authorization"] = "Bearer " + sys.argv[3]
    request = urllib.request.Request(url.rstrip("/") + "/v1/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            for line in reply:
                data = line.decode().removeprefix("data: ").strip()
                if not data or data == "[DONE]":
                    continue
                event = json.loads(data)
                if "error" in event:
                    sys.exit(f"\nask: {event['error']['message']}")
                for choice in event["choices"]:
                    print(choice["delta"].get("content") or "", end="", flush=True)
    except urllib.error.HTTPError as error:
        sys.exit(f"ask: {error}: {error.read(2000).decode(errors='replace')}")
    except OSError as error:
        sys.exit(f"ask: {error}")
    print()


if __name__ == "__main__":
    main()
