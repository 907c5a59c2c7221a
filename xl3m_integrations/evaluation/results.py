"""What an evaluation found: a record of every answer, and figures with intervals over any grouping of them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from xl3m_integrations.errors import SettingError
from xl3m_integrations.evaluation.metrics import Estimate, auroc, estimate, recall
from xl3m_integrations.types import Span

CUTS = (1, 2, 4, 8, 16)  # k of recall@k
GROUPINGS = {"by_length": ("method", "length"), "by_task": ("method", "task", "length"),
             "by_depth": ("method", "length", "depth")}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Record:
    """One method's answer to one example.

    Attributes:
        task: The example's task.
        method: The method's name.
        length: Tokens that were asked for; None for rows of a file.
        tokens: Tokens of the document, in the scoring model's tokens.
        number: Number of the example in its task.
        question: The question.
        answers: Accepted answers.
        gold: Text of the passages that the answer needs.
        depths: Where each of them begins, from 0 to 1.
        ranks: Of each, how many of the best segments hold it between them; empty where nothing is ranked.
        best: Text of the segment that is ranked first; empty where nothing is ranked.
        kept: (start, end) of what the reader read.
        kept_tokens: Its length in the reader's tokens.
        answer: The answer; None where the engine has no reader, or the method failed.
        exact: Whether the answer is an accepted one; see `metrics.is_exact`. None where there is none.
        contains: Share of the needed answers in it; see `metrics.contained`. None where there is none.
        seconds: From the text to the answer.
        answerable: Whether the document holds the answer.
        certainty: How sure the method is that it does, from 0 to 1; None where it does not say.
        found: Whether it says so; None where it does not say.
        error: Why the method failed; None where it did not.
    """

    task: str
    method: str
    length: int | None
    tokens: int
    number: int
    question: str
    answers: tuple[str, ...]
    gold: tuple[str, ...]
    depths: tuple[float, ...]
    ranks: tuple[int | None, ...] = ()
    best: str = ""
    kept: tuple[Span, ...] = ()
    kept_tokens: int = 0
    answer: str | None = None
    exact: bool | None = None
    contains: float | None = None
    seconds: float = 0.0
    answerable: bool = True
    certainty: float | None = None
    found: bool | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """Figures over a group of records.

    Attributes:
        key: What the records have in common, such as `{"method": "xl3m", "length": 8000}`.
        n: How many records there are, failures and unanswerable questions left out.
        errors: How many more failed.
        figures: By name, each a mean with its interval and its own n, or None where nothing was to be measured:
            `recall@k`, the share of the gold passages that the best k segments hold; `all@k`, whether they hold all of
            them; `exact`, `contains`, `kept_tokens`, `seconds`; and, over answerable and unanswerable questions,
            `auroc` of the certainty that the text holds the answer, and `found`, whether it is rightly said.
    """

    key: Mapping[str, Any]
    n: int
    errors: int
    figures: Mapping[str, Estimate | None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that an evaluation found.

    Attributes:
        settings: What was run, the seed included.
        records: One for every example and method.
        left_out: Methods that did not run on some or all examples, and why.
        complete: Whether all that was asked for was run; False where the time limit or an interrupt ended it.
    """

    settings: Mapping[str, Any]
    records: tuple[Record, ...] = field(repr=False)
    left_out: Mapping[str, str]
    complete: bool

    def cells(self, by: Sequence[str] = ("method", "task", "length"), bins: int = 10) -> list[Cell]:
        """Figures for every group of records, in the order in which the groups first appear.

        Args:
            by: Fields of `Record` to group by; `depth` is that of the first gold passage, as the number of its bin.
            bins: Into how many equal parts a document's depth is divided.

        Raises:
            SettingError: A name is not one to group by.
        """
        known = {"task", "method", "length", "number", "depth"}
        if not set(by) <= known:
            raise SettingError(f"Cannot group by {', '.join(set(by) - known)}; choose from {', '.join(sorted(known))}.")
        groups: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
        for record in self.records:
            groups[tuple(_field(record, name, bins) for name in by)].append(record)
        return [_cell(dict(zip(by, key, strict=True)), records) for key, records in groups.items()]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can hold it: settings, cells by each of `GROUPINGS`, records."""
        cells = {name: [asdict(cell) for cell in self.cells(by)] for name, by in GROUPINGS.items()}
        return {
            "settings": dict(self.settings),
            "complete": self.complete,
            "left_out": dict(self.left_out),
            **cells,
            "records": [asdict(record) for record in self.records],
        }

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)


def _field(record: Record, name: str, bins: int) -> Any:
    if name != "depth":
        return getattr(record, name)
    return min(bins - 1, int(record.depths[0] * bins)) if record.depths else None


def _cell(key: Mapping[str, Any], records: Sequence[Record]) -> Cell:
    all_done = [record for record in records if record.error is None]
    done = [record for record in all_done if record.answerable]
    ranked = [record for record in done if record.ranks]
    figures: dict[str, Estimate | None] = {}
    for k in CUTS:
        shares = [recall(record.ranks, k) for record in ranked]
        figures[f"recall@{k}"] = estimate(shares)
        figures[f"all@{k}"] = estimate([float(share == 1) for share in shares])
    for name in ("exact", "contains", "kept_tokens", "seconds"):
        figures[name] = estimate([float(value) for record in done if (value := getattr(record, name)) is not None])
    saying = [record for record in all_done if record.certainty is not None]
    unsure = [record.certainty or 0.0 for record in saying if not record.answerable]
    figures["auroc"] = auroc([record.certainty or 0.0 for record in saying if record.answerable], unsure)
    figures["found"] = estimate([float(record.found is record.answerable) for record in saying]) if unsure else None
    return Cell(key, len(done), len(records) - len(all_done), figures)
