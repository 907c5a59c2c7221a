"""Measure a trained model on fresh documents and write its card: `python -m xl3m_integrations.bundled.card MODEL`.

Every figure is a share of right answers (equal but for case and surrounding punctuation) with its n and seed. "Held
out" are the wordings and subjects of `probes`, which training never sees.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from xl3m_integrations.bundled import corpus, probes
from xl3m_integrations.bundled.corpus import Fact, Prose, Rng
from xl3m_integrations.bundled.plan import Plan
from xl3m_integrations.bundled.train import read_haystack
from xl3m_integrations.demo import long_text, same_answer
from xl3m_integrations.engine import XL3M
from xl3m_integrations.evaluation.metrics import wilson

WINDOW_FACTS = 8  # facts of an in-window document, the one asked for included
WINDOW_CHARACTERS = 1_000  # of filler beside them

_TWO_STATEMENTS = (corpus.hop_fact, corpus.told_fact)  # both in the text; one of them in the question

Result = tuple[Fact, str, int | None]  # what was asked, the answer, the rank of the segment that holds it, if kept


@dataclass(frozen=True, slots=True)
class Tally:
    """Right answers of n, and where a passage was looked for, how often it was found.

    Attributes:
        what: What was measured.
        n: Questions asked, each on a document of its own.
        right: Right answers.
        first: How often the right segment was ranked first; None where nothing was selected.
        among_four: How often it was among the first four; None where nothing was selected.
        seed: Seed of the documents.
    """

    what: str
    n: int
    right: int
    first: int | None
    among_four: int | None
    seed: int

    def row(self) -> str:
        """As a row of a Markdown table."""
        found = ["-" if count is None else f"{count / self.n:.2f}" for count in (self.first, self.among_four)]
        low, high = wilson(self.right, self.n)
        share = f"{self.right / self.n:.3f} ({low:.2f} to {high:.2f})"
        return f"| {self.what} | {self.n} | {share} | {found[0]} | {found[1]} | {self.seed} |"


def in_window(
    xl3m: XL3M, makers: Sequence[Callable[[Rng], Fact]], n: int, seed: int, prose: Prose | None
) -> Iterator[Result]:
    """Questions on documents that the model reads whole."""
    rng = random.Random(seed)
    for number in range(n):
        fact = makers[number % len(makers)](rng)
        yield fact, xl3m.answer(_window_document(xl3m, rng, fact, prose), fact.question).text, None


def _window_document(xl3m: XL3M, rng: Rng, fact: Fact, prose: Prose | None) -> str:
    """A document around `fact` that the reader reads whole; facts and filler are fewer where they would not fit."""
    assert xl3m.reader is not None
    room = xl3m.reader.window - xl3m.max_new_tokens - xl3m.reader.overhead(fact.question)
    for less in range(WINDOW_FACTS):
        facts = corpus.unambiguous(rng, [fact], WINDOW_FACTS - 1 - less)
        text, _ = corpus.weave(rng, corpus.filler(rng, WINDOW_CHARACTERS // (1 + less), prose), facts)
        if xl3m.reader.count(text) <= room:
            break
    return text


def through_xl3m(
    xl3m: XL3M, makers: Sequence[Callable[[Rng], Fact]], tokens: int, n: int, seed: int, prose: Prose | None = None
) -> Iterator[Result]:
    """Questions on documents of `tokens` tokens, cut down to the key context by XL3M."""
    rng = random.Random(seed)
    for number in range(n):
        fact = makers[number % len(makers)](rng)
        text = long_text(xl3m, rng, [(rng.random(), fact)], tokens, prose)
        start = text.index(fact.statement)
        end = start + fact.value_at + len(fact.value)
        answer = xl3m.answer(text, fact.question)
        ranks = [s.rank for s in answer.key_context.segments if s.start <= start and end <= s.end]
        yield fact, answer.text, min(ranks, default=None)


def tally(what: str, seed: int, results: Sequence[Result], *, selected: bool) -> Tally:
    """Count right answers and, where segments were selected, how often the right one came first or among four."""
    right = sum(same_answer(answer, fact.value) for fact, answer, _ in results)
    ranks = [rank for _, _, rank in results if rank is not None]
    first = sum(rank == 1 for rank in ranks) if selected else None
    four = sum(rank <= 4 for rank in ranks) if selected else None
    return Tally(what, len(results), right, first, four, seed)


def by_family(results: Sequence[Result]) -> str:
    """`family right/n, …`."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for fact, answer, _ in results:
        counts[fact.family][0] += same_answer(answer, fact.value)
        counts[fact.family][1] += 1
    return ", ".join(f"{family} {right}/{n}" for family, (right, n) in sorted(counts.items()))


def measure(xl3m: XL3M, prose: Prose | None, n: int, seed: int) -> tuple[list[Tally], list[str]]:
    """All figures of the card, and the break-down by family of the in-window ones."""
    families = tuple(corpus.FAMILIES)
    held_out = (probes.probe_fact,)
    rows, details = [], []
    filler: list[tuple[str, Prose | None]] = [("generated filler", None)]
    if prose is not None:
        filler.append(("real prose", prose))
    for name, texts in filler:
        for kind, makers in (("all kinds", families), ("held out", held_out), ("two statements", _TWO_STATEMENTS)):
            results = list(in_window(xl3m, makers, n, seed, texts))
            rows.append(tally(f"in the window, {kind}, {name}", seed, results, selected=False))
            details.append(f"{kind}, {name}: {by_family(results)}")
    for tokens in (8_000, 64_000):
        for name, texts in filler:
            for kind, makers in (("all kinds", corpus.DEMO_FAMILIES), ("held out", held_out)):
                results = list(through_xl3m(xl3m, makers, tokens, max(1, n // 4), seed + 1, texts))
                rows.append(tally(f"through XL3M, {tokens:,} tokens, {kind}, {name}", seed + 1, results, selected=True))
    return rows, details


CARD = """---
license: mit
language: en
library_name: transformers
pipeline_tag: text-generation
---

# The bundled model of xl3m-integrations

A Llama of {parameters:,} parameters ({megabytes:.1f} MB in bfloat16) with a window of {window} tokens and a byte-level
vocabulary of {vocabulary:,}. It does one thing: it reads a passage and a question and answers with a few words of the
passage, and where the passage does not hold the answer its next-token distribution stays wide. It is there to see XL3M
work without a download, and to test with. For your own documents use a real model.

Trained from scratch by `python -m xl3m_integrations.bundled.train` ({tokens:,} tokens, seed {seed}, on one GPU)
on generated documents: facts in many wordings among generated filler and public-domain prose, several questions a
document, questions whose fact is absent keeping their true, unpredictable answer. Layers 0 to 2 start as copy heads;
see `bundled/model.py`.{note}

`tuned_lens.safetensors` lets the first layers score alone (`exit_layer=`): `python -m xl3m_integrations.bundled.lens`
fitted it by least squares on questions and passages of the same kinds. Other weights need another one.

Prompt: the chat template in the tokenizer, with the passage, a blank line, `Question: …` as the user's message.

## Measured

On fresh documents, by `python -m xl3m_integrations.bundled.card`. "Held out" questions use wordings and subjects that
training never saw. In the window a document has {facts} facts; through XL3M one look-alike or other fact stands in
about every 90 tokens. Share right with Wilson's 95% interval, then how often the right segment was kept and came first,
and was kept and came among the first four; how many are kept is decided by where the scores drop.

| what | n | right | first | first four | seed |
| --- | --- | --- | --- | --- | --- |
{table}

In the window, by family, right of n:

{details}

## Limits

English, short facts, answers that stand verbatim in the text. It does not reason, sum up or know anything. Past its
window it fails, as it should. Wordings far from those of training are answered less well: see "held out".
"""


def main(arguments: list[str] | None = None) -> None:
    """Command line of the measurement."""
    parser = argparse.ArgumentParser(prog="python -m xl3m_integrations.bundled.card", description=__doc__)
    parser.add_argument("model", type=Path, help="the model's folder; its README.md is written there")
    parser.add_argument("--run", type=Path, help="the training run's folder, for its settings")
    parser.add_argument("--haystack", type=Path, help="folder of .txt files that training did not see")
    parser.add_argument("--note", default="", help="what else is to be said of the training")
    parser.add_argument("--n", type=int, default=200, help="in-window questions per row; a quarter of it through XL3M")
    parser.add_argument("--seed", type=int, default=20_000)
    options = parser.parse_args(arguments)
    xl3m = XL3M.from_pretrained(options.model)
    rows, details = measure(xl3m, read_haystack(options.haystack), options.n, options.seed)
    plan = Plan.from_json((options.run / "plan.json").read_text()) if options.run else Plan()
    weights = options.model / "model.safetensors"
    card = CARD.format(
        parameters=sum(parameter.numel() for parameter in xl3m.scorer.model.parameters()),  # type: ignore[attr-defined]
        megabytes=weights.stat().st_size / 1e6,
        window=xl3m.window,
        vocabulary=len(xl3m.scorer.hf_tokenizer),  # type: ignore[attr-defined]
        tokens=plan.tokens,
        seed=plan.seed,
        note=f"\n\n{options.note}" if options.note else "",
        facts=WINDOW_FACTS,
        table="\n".join(row.row() for row in rows),
        details="\n".join(f"- {line}" for line in details),
    )
    (options.model / "README.md").write_text(card, encoding="utf-8")
    print(card)  # noqa: T201


if __name__ == "__main__":
    main()
