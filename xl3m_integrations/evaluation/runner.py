"""Runs methods on tasks: the same examples for all, the same numbers from the same seed."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from xl3m_integrations.engine import XL3M
from xl3m_integrations.errors import MissingExtraError, SettingError, XL3MError
from xl3m_integrations.evaluation.asking import Asked, Method, NotApplicable, Outcome
from xl3m_integrations.evaluation.documents import Material
from xl3m_integrations.evaluation.examples import Example
from xl3m_integrations.evaluation.methods import METHODS, Engine
from xl3m_integrations.evaluation.metrics import contained, gold_rank, is_exact
from xl3m_integrations.evaluation.results import Evaluation, Record
from xl3m_integrations.evaluation.tasks import Task, example_of, get_tasks

DEFAULT_TASKS = ("niah_single_2", "niah_multikey_2", "kv", "two_hop", "paraphrase", "lookalike")


@dataclass(frozen=True, slots=True)
class EvaluationProgress:
    """How far an evaluation is.

    Attributes:
        done: Examples done by all methods.
        total: Examples to do.
        label: What is being run.
        seconds: Time since the beginning.
    """

    done: int
    total: int
    label: str
    seconds: float


def evaluate(
    xl3m: XL3M | None = None,
    *,
    tasks: Sequence[str | Task] | None = None,
    methods: Sequence[str | Method] | None = None,
    lengths: Sequence[int] = (8_000,),
    n: int = 10,
    seed: int = 0,
    haystack: Sequence[str] = (),
    rows: Sequence[Example] = (),
    top_k: int | None = None,
    max_new_tokens: int | None = None,
    unanswerable: bool = False,
    time_limit: float | None = None,
    progress: Callable[[EvaluationProgress], None] | None = None,
) -> Evaluation:
    """Compare methods on fresh documents and on rows of files.

    Every method gets the same documents, cut into the same segments, and the same reader. `xl3m` keeps what
    `XL3M.answer` keeps: as many segments as its scores suggest. Every other method that ranks hands over as many tokens
    as `xl3m` may keep at most. With `top_k` all of them keep that much.

    Args:
        xl3m: The engine; None takes the bundled model's.
        tasks: Names from `TASKS`, or tasks of your own; None takes a handful, or none where there are rows.
        methods: Names from `METHODS`, `xl3m-hops-N` for any N, or methods of your own; None takes all in `METHODS` that
            are installed.
        lengths: Lengths of the documents, in the scoring model's tokens.
        n: Examples for each task and length, and of each task of the rows, the first so many.
        seed: Fixes every example and every draw. An example does not depend on what else is run.
        haystack: Texts to hide statements in; empty for generated text.
        rows: Examples from files; see `load_rows`.
        top_k: Segments to keep.
        max_new_tokens: Length limit of an answer; None takes the engine's.
        unanswerable: Whether to ask every question of its document without the statements that answer it too, of the
            methods that say whether the text holds the answer.
        time_limit: Seconds after which no further example is begun; an interrupt (Ctrl-C) ends the run as well, and
            gives what there is. Examples are run in rounds over all tasks and lengths, so that every cell has about the
            same n when time is up.
        progress: Called before each example.

    Raises:
        SettingError: A name is unknown or a number out of its range.
        MissingExtraError: A method that was asked for by name needs a package that is not installed.
    """
    if n < 1 or not lengths or (top_k is not None and top_k < 1):
        raise SettingError(f"n is {n}, lengths {list(lengths)} and top_k {top_k}; give at least one of each.")
    xl3m = xl3m or XL3M.default()
    chosen = _tasks(DEFAULT_TASKS if tasks is None and not rows else tasks or ())
    contestants, left_out = _methods(methods)
    material = Material(xl3m, haystack)
    plan = _plan(material, chosen, lengths, rows, n, seed)
    cut = partial(Asked.of, xl3m, top_k=top_k, max_new_tokens=max_new_tokens, seed=seed)
    records: list[Record] = []
    done = 0
    with suppress(KeyboardInterrupt):
        for label, make in _in_time(plan, time_limit, progress):
            try:
                records += _asked(cut, make(), contestants, left_out, unanswerable=unanswerable)
            except XL3MError as error:
                if not records:
                    raise  # of settings with which none can be asked
                warnings.warn(f"An example of {label} could not be asked and is left out: {error}", stacklevel=2)
            done += 1
    settings = _engine_settings(xl3m, top_k, max_new_tokens) | {
        "tasks": [task.name for task in chosen] + sorted({row.task for row in rows}),
        "methods": [method.name for method in contestants],
        "lengths": list(lengths),
        "n": n,
        "seed": seed,
        "haystack": "texts" if material.prose else "generated",
        "unanswerable": unanswerable,
        "time_limit": time_limit,
    }
    return Evaluation(settings, tuple(records), left_out, done == len(plan))


def _engine_settings(xl3m: XL3M, top_k: int | None, max_new_tokens: int | None) -> dict[str, Any]:
    return {
        "model": xl3m.name,
        "window": xl3m.window,
        "segment_tokens": xl3m.segmenter.segment_tokens,
        "overlap_tokens": xl3m.segmenter.overlap_tokens,
        "measure": xl3m.measure.name,
        "exit_layer": xl3m.exit_layer,
        "top_k": top_k,
        "budget_tokens": (top_k or xl3m.most_kept) * xl3m.segmenter.segment_tokens,
        "max_new_tokens": max_new_tokens or xl3m.max_new_tokens,
    }


Plan = list[tuple[str, Callable[[], Example]]]


def _plan(
    material: Material, tasks: Sequence[Task], lengths: Sequence[int], rows: Sequence[Example], n: int, seed: int
) -> Plan:
    """What to run, in order: (label, what makes the example), example 0 of every task and length before example 1."""
    plan: Plan = []
    for number in range(n):
        for tokens in lengths:
            for task in tasks:
                plan.append((f"{task.name}, {tokens:,} tokens", _maker(task, material, tokens, number, seed)))
        plan += [(row.task, _given(row)) for row in rows if row.number == number]
    return plan


def _in_time(
    plan: Plan, time_limit: float | None, progress: Callable[[EvaluationProgress], None] | None
) -> Iterator[tuple[str, Callable[[], Example]]]:
    """What each example is, and what makes it, until the time is up."""
    began = time.monotonic()
    for done, (label, make) in enumerate(plan):
        seconds = time.monotonic() - began
        if time_limit is not None and seconds >= time_limit:
            return
        if progress is not None:
            progress(EvaluationProgress(done, len(plan), label, seconds))
        yield label, make


def _maker(task: Task, material: Material, tokens: int, number: int, seed: int) -> Callable[[], Example]:
    return lambda: example_of(task, material, tokens, number, seed)


def _given(row: Example) -> Callable[[], Example]:
    return lambda: row


def _tasks(tasks: Sequence[str | Task]) -> list[Task]:
    found: dict[str, Task] = {}
    for task in tasks:
        found |= {one.name: one for one in (get_tasks([task]) if isinstance(task, str) else [task])}
    return list(found.values())


def _methods(methods: Sequence[str | Method] | None) -> tuple[list[Method], dict[str, str]]:
    """The methods to run, and those that are not installed with the reason."""
    if methods is not None:
        found = [_method(method) if isinstance(method, str) else method for method in methods]
        for method in found:
            method.check()
        return list({method.name: method for method in found}.values()), {}
    installed, left_out = [], {}
    for method in METHODS.values():
        try:
            method.check()
        except MissingExtraError as error:
            left_out[method.name] = str(error)
        else:
            installed.append(method)
    return installed, left_out


def _method(name: str) -> Method:
    if hops := re.fullmatch(r"xl3m-hops-([1-9]\d?)", name):
        return Engine(name, hops=int(hops[1]))
    if name not in METHODS:
        raise SettingError(f"Unknown method {name!r}; choose from {', '.join(METHODS)}.")
    return METHODS[name]


def _asked(
    cut: Callable[[Example], Asked],
    example: Example,
    methods: Sequence[Method],
    left_out: dict[str, str],
    *,
    unanswerable: bool,
) -> list[Record]:
    """All methods on an example and, where wanted, those that say whether a text holds the answer on its twin."""
    records = list(_run(cut(example), methods, left_out))
    twin = example.twin() if unanswerable else None
    if twin is not None:
        saying = {record.method for record in records if record.found is not None}
        records += _run(cut(twin), [method for method in methods if method.name in saying], left_out)
    return records


def _run(asked: Asked, methods: Sequence[Method], left_out: dict[str, str]) -> Iterator[Record]:
    for method in methods:
        try:
            outcome = method.run(asked)
        except NotApplicable as reason:
            left_out.setdefault(method.name, str(reason))
        except Exception as error:  # of a method of one's own, or of what it is built on; the others go on
            what = str(error) if isinstance(error, XL3MError) else f"{type(error).__name__}: {error}"
            yield Record(**_about(asked, method), error=what)
        else:
            yield Record(**_about(asked, method), **_found(asked, outcome))


def _about(asked: Asked, method: Method) -> dict[str, Any]:
    example = asked.example
    return {
        "task": example.task,
        "method": method.name,
        "length": example.length,
        "tokens": asked.tokens,
        "number": example.number,
        "question": example.question,
        "answers": example.answers,
        "gold": tuple(example.text[start:end] for start, end in example.gold),
        "depths": example.depths,
        "answerable": example.answerable,
    }


def _found(asked: Asked, outcome: Outcome) -> dict[str, Any]:
    example, answer = asked.example, outcome.answer
    spans = [(asked.segments[number].start, asked.segments[number].end) for number in outcome.ranked]
    ranks = tuple(gold_rank(gold, spans, example.cover) for gold in example.gold) if spans else ()
    judged: dict[str, Any] = {}
    if answer is not None and example.answerable:
        judged = {
            "exact": is_exact(answer, example.answers, needs_all=example.needs_all),
            "contains": contained(answer, example.answers, needs_all=example.needs_all),
        }
    return judged | {
        "ranks": ranks,
        "best": asked.segments[outcome.ranked[0]].text if spans else "",
        "kept": outcome.kept,
        "kept_tokens": outcome.kept_tokens,
        "answer": answer,
        "seconds": round(outcome.seconds, 4),
        "certainty": outcome.certainty,
        "found": outcome.found,
    }
