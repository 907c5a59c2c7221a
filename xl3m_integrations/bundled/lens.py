"""Fit the bundled model's lens: `python -m xl3m_integrations.bundled.lens --haystack DIR [--out FOLDER]`.

Seeded. The questions and passages are those of training, asked in the form that scoring has.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from xl3m_integrations.backends.loading import load
from xl3m_integrations.bundled import MODEL_FOLDER
from xl3m_integrations.bundled.corpus import Prose
from xl3m_integrations.bundled.examples import ExampleMaker
from xl3m_integrations.bundled.train import read_haystack
from xl3m_integrations.engine import XL3M
from xl3m_integrations.lens_fitting import fit_lens

PASSAGE_TOKENS = (60, 130)  # about the length of a segment
ANSWERED = 0.65  # share of the questions that their passage answers
QUESTIONS = 3  # on a passage


def examples(tokenizer: Any, prose: Prose | None, rng: random.Random) -> Iterator[tuple[str, str]]:
    """(question, passage) without end. Of those without an answer most have a look-alike.

    Args:
        tokenizer: The model's, of transformers.
        prose: Real text to hide facts in; None generates all of it.
        rng: Source of everything random.
    """
    maker = ExampleMaker(tokenizer, prose, rng)
    while True:
        ids, present, absent = maker.context(rng.randint(*PASSAGE_TOKENS))
        passage = tokenizer.decode(ids)
        for _ in range(QUESTIONS):
            fact = rng.choice(present) if present and rng.random() < ANSWERED else maker.missing(present, absent)
            if fact is not None:
                yield rng.choice(fact.questions), passage


def main(arguments: list[str] | None = None) -> None:
    """Command line of the script."""
    parser = argparse.ArgumentParser(prog="python -m xl3m_integrations.bundled.lens", description=__doc__)
    parser.add_argument("--haystack", type=Path, help="folder of .txt files to hide facts in, beside generated filler")
    parser.add_argument("--model", type=Path, default=MODEL_FOLDER, help="folder of the model")
    parser.add_argument("--out", type=Path, help="folder or file to write the lens to; the model's folder if left out")
    parser.add_argument("--examples", type=int, default=8_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    model, tokenizer = load(options.model, device="cpu", dtype="float32")
    made = examples(tokenizer, read_haystack(options.haystack), random.Random(options.seed))
    xl3m = XL3M.from_pretrained(model=model, tokenizer=tokenizer)
    fit_lens(xl3m, islice(made, options.examples)).save(options.out or options.model)


if __name__ == "__main__":
    main()
