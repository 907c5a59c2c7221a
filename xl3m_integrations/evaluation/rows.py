"""Questions from files: one JSON object a line, or one array of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xl3m_integrations.errors import InputError
from xl3m_integrations.evaluation.examples import Example
from xl3m_integrations.types import Span

SEPARATOR = "\n"


def load_rows(path: str | Path) -> list[Example]:
    """Read examples from a file of JSON lines, or of one JSON array.

    Each row has `question`; `answers`, a string or several, any of which is accepted; `docs`, the document's passages
    in order, or one string; and `gold`, the numbers of the passages that hold the answer. Optional: `task`, the name
    that the row is reported under (the file's name otherwise), and `answerable` (true otherwise). Of a gold passage,
    what must be read is its first accepted answer, or at least half of it where it holds none.

    Raises:
        InputError: The file cannot be read, or a row lacks something; the message names file and row.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in _lines(text)]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as rows of JSON: {error}. Write one JSON object a line.") from error
    if not rows:
        raise InputError(f"{path} holds no row; write one JSON object a line.")
    counts: dict[str, int] = {}
    examples = []
    for number, row in enumerate(rows, 1):
        try:
            task = str(row.get("task", path.stem))
            counts[task] = counts.get(task, -1) + 1
            examples.append(_example(row, task, counts[task]))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"Row {number} of {path} cannot be used ({type(error).__name__}: {error}); it needs question, answers, "
                "docs and gold."
            ) from error
    return examples


def _lines(text: str) -> Iterator[str]:
    return (line for line in text.split("\n") if line.strip())


def _example(row: Mapping[str, Any], task: str, number: int) -> Example:
    docs = [row["docs"]] if isinstance(row["docs"], str) else [str(doc) for doc in row["docs"]]
    given = [row["answers"]] if isinstance(row["answers"], str) else list(row["answers"])
    answers = [str(answer) for answer in given if answer is not None and str(answer).strip()]
    answerable = bool(row.get("answerable", True))
    gold = [row["gold"]] if isinstance(row["gold"], int) else list(row["gold"])
    nothing = not str(row["question"]).strip() or not any(doc.strip() for doc in docs)
    if nothing or answerable != bool(answers) or len(answers) < len(given):
        raise ValueError("question, docs or answers are empty")
    if any(at < 0 for at in gold):
        raise ValueError(f"gold is {gold}; the first passage is number 0")
    starts = [0]
    for doc in docs:
        starts.append(starts[-1] + len(doc) + len(SEPARATOR))
    spans = [_passage(docs[at], starts[at], answers) for at in gold]
    whole = any(end - start == len(docs[at]) for at, (start, end) in zip(gold, spans, strict=True))
    return Example(
        task=task,
        text=SEPARATOR.join(docs),
        question=str(row["question"]),
        answers=tuple(answers),
        gold=tuple(spans),
        number=number,
        answerable=answerable,
        cover=0.5 if whole else 1.0,
    )


def _passage(doc: str, start: int, answers: list[str]) -> Span:
    found = [match for answer in answers if (match := re.search(re.escape(answer), doc, re.IGNORECASE))]
    first = min((match.span() for match in found if match[0]), default=(0, len(doc)))
    return (start + first[0], start + first[1])
