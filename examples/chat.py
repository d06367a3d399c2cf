"""A conversation of two questions with the demo weights, from Python.

    pip install ".[demo]" && python examples/chat.py

The first run fetches the demo weights (about 90 MB). For ChatGLM2 or ChatGLM3, pass the folder of a
published float16 checkpoint: python examples/chat.py FOLDER
"""

import sys

from glm2 import (
    ChatSession,
    GLM2Model,
    SamplingParams,
    load_tokenizer,
    read_checkpoint_config,
)
from glm2.demo import NOTICE, ensure_demo

QUESTIONS = ("What is the capital of France?", "And of Italy?")


def demo_folder():
    """Fetch and build the demo weights the first time; name each stage once."""
    print(NOTICE, file=sys.stderr)
    stages = set()

    def report(stage, _done, _total):
        if stage not in stages:
            stages.add(stage)
            print(f"{stage} ...", file=sys.stderr)

    return ensure_demo(report=report)


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else demo_folder()
    session = ChatSession(
        GLM2Model.from_pretrained(folder),
        load_tokenizer(folder),
        read_checkpoint_config(folder),
        sampling=SamplingParams(temperature=0.0),
        max_new_tokens=64,
    )
    for question in QUESTIONS:
        print(f"> {question}")
        for piece in session.stream(question):
            print(piece, end="", flush=True)
        turn = session.last_turn
        print(f"\n  [{turn.prompt_tokens} prompt tokens, {turn.cached_tokens} of them cached]")


if __name__ == "__main__":
    main()
