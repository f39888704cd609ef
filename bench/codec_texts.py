#!/usr/bin/env python3
"""Held-out text for `efedllm-ctl eval kl` and `codec report`: Seedling's own generator at another seed, so nothing is downloaded.

  codec_texts.py chats > held-out.txt       documents, chats as "user: ..." and "assistant: ...", "%%%" between them
  codec_texts.py plain > held-out.txt       the same without any marks, as a text
  codec_texts.py stories > held-out.txt     tales alone, which stories260K knows too
"""
import argparse
import itertools
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "models" / "seedling"))
import corpus  # noqa: E402

DOCUMENT_END = "%%%\n"


def is_chat(document):
    return isinstance(document[0], dict)


def words(document, marked):
    if not is_chat(document):
        return "".join(text for text, _ in document) + "\n"
    if marked:
        return "".join(f"{message['role']}: {message['content']}\n" for message in document)
    return "".join(message["content"] + "\n" for message in document)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="\n".join(__doc__.splitlines()[1:]))
    parser.add_argument("kind", choices=("chats", "plain", "stories"))
    parser.add_argument("--seed", type=int, default=977)
    parser.add_argument("--documents", type=int, default=150)
    args = parser.parse_args()
    documents = corpus.documents(args.seed)
    if args.kind == "stories":
        documents = (document for document in documents if not is_chat(document) and "The end." in document[-1][0])
    texts = [words(document, args.kind == "chats") for document in itertools.islice(documents, args.documents)]
    sys.stdout.write((DOCUMENT_END if args.kind == "chats" else "").join(texts))


if __name__ == "__main__":
    main()
