"""What the commands show: progress, passages, tables, JSON. Nothing that stands in a document drives the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from xl3m_integrations.cli.controls import visible
from xl3m_integrations.types import Certainty, KeyContext, Selection

if TYPE_CHECKING:
    from xl3m_integrations import types
    from xl3m_integrations.cli.files import Sources

# Neither emphasis nor :emoji: is made of what stands in a document.
out, err = Console(highlight=False, emoji=False), Console(stderr=True, highlight=False, emoji=False)


@contextmanager
def progress_bar(label: str, *, quiet: bool) -> Iterator[Callable[[types.Progress], None] | None]:
    """A progress bar on standard error; gives the engine's progress callback, or None where it should be quiet."""
    if quiet:
        yield None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}% {task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(label, total=None, rate="")

        def show(progress: types.Progress) -> None:
            rate = f"{progress.tokens / max(progress.seconds, 1e-9):,.0f} tokens/s"
            bar.update(task, completed=progress.characters, total=progress.total, rate=rate)

        yield show


def show_asked(asked: Any, window: int, characters: int) -> None:
    """One question of the demonstration: segments kept, answer, and what the end of the text alone gives."""
    mark = {True: ("right", "green"), False: ("wrong", "red")}
    table = Table(title=Text(f"\n{asked.question}", style="bold"), title_justify="left")
    for column in ("rank", "score", "entropy, nats", "place in the text", "segment"):
        table.add_column(column, justify="left" if column == "segment" else "right")
    for segment in sorted(asked.full.key_context.segments, key=lambda segment: segment.rank):
        where = f"{100 * segment.start / characters:.2f}%"
        excerpt = Text(_excerpt(segment.text, asked.expected))
        figures = (str(segment.rank), f"{segment.score:.2f}", f"{segment.evidence.get('entropy', float('nan')):.3f}")
        table.add_row(*figures, where, excerpt)
    out.print(table)
    truth = f"; the text says {asked.expected} at {100 * asked.depth:.2f}%."
    out.print(Text.assemble("XL3M says ", (asked.answer, "bold"), ": ", mark[asked.correct], truth))
    said = f"From the last {window} tokens alone the same model says {asked.truncated_answer or 'nothing'}: "
    out.print(Text.assemble(said, mark[asked.truncated_correct], "."))


def _excerpt(text: str, around: str, width: int = 64) -> str:
    flat = visible(" ".join(text.split()))
    at = max(0, flat.find(" ".join(around.split())))
    start = max(0, min(at - width // 2, len(flat) - width))
    return ("…" if start else "") + flat[start : start + width] + ("…" if start + width < len(flat) else "")


def show_context(context: KeyContext, sources: Sources) -> None:
    """The passages of a key context, each under its file and place."""
    for source in sources.cited(context.spans):
        place = Text(f"{visible(source.file)}, characters {source.start:,} to {source.end:,}")
        out.rule(place, align="left", style="dim")
        out.print(visible(source.text.strip()), markup=False, soft_wrap=True)
    if context.segments:
        ranked = sorted(context.segments, key=lambda segment: segment.rank)
        scores = ", ".join(f"{segment.score:.2f}" for segment in ranked)
        out.rule(style="dim")
        out.print(f"scores, best first: {scores}", style="dim")


def show_reused(selection: Selection | None, journal: str | None) -> None:
    """How many of the scores were taken from the journal."""
    if selection is not None and journal is not None:
        reused = f"{selection.reused:,} of {len(selection.scores):,} segments"
        err.print(f"{reused} taken from {visible(journal)}, the others added to it.", markup=False, soft_wrap=True)


def show_certainty(certainty: Certainty | None) -> None:
    """How certain the answer is, and a warning where the text seems not to hold it."""
    if certainty is None:
        return
    says = "" if certainty.found else "; the text seems not to hold the answer"
    out.print(f"certainty {certainty.probability:.2f}{says}", style="dim" if certainty.found else "yellow")


def certainty_json(certainty: Certainty | None) -> dict[str, Any]:
    """The same as the commands' JSON shows it."""
    return {
        "found": None if certainty is None else certainty.found,
        "certainty": None if certainty is None else round(certainty.probability, 4),
    }


def selection_json(selection: Selection, sources: Sources) -> dict[str, Any]:
    """A selection as the commands' JSON shows it."""
    segments = []
    for segment in selection.segments:
        parts = sources.cited(((segment.start, segment.end),))  # several where it runs from one file into the next
        most = max(parts, key=lambda part: part.end - part.start, default=None)
        place = {"file": most.file, "start": most.start, "end": most.end} if most else {}
        figures = {
            "index": segment.index,
            "score": segment.score,
            "rank": segment.rank,
            "evidence": dict(segment.evidence),
        }
        segments.append(place | figures | {"text": segment.text})
    return {
        "measure": selection.measure,
        **certainty_json(selection.certainty),
        "document_tokens": selection.tokens,
        "document_characters": selection.characters,
        "select_seconds": round(selection.seconds, 3),
        "reused": selection.reused,
        "segments": segments,
        "spans": [source.json() for source in sources.cited(selection.key_context.spans)],
    }
