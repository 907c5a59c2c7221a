"""Copies of a Hugging Face model on a Ray cluster as scorer; the first of them is also the reader.

Segments are sent to the copies in the very groups in which one process would read them, so the numbers are the same to
the last bit (on the same hardware, with the same dtype and number of threads, which on CPUs is `num_cpus_per_replica`).
A few groups per copy are under way or done and not yet handed on, the others are not even cut: memory does not grow
with the document, and evidence comes in order.

These are plain actors behind a bounded queue, not a Ray Data pipeline. Ray Data reads its input on the workers, from
files or from blocks that exist beforehand; here the document may be a stream that only this process can read, and must
not be read ahead. Its batches are cut where blocks end, not where one process would cut them, and it gives no say in
what happens to the batch on which a worker died.

A copy that dies is started again by Ray, which also repeats what it was reading. A group on which copies keep dying is
read in halves, until the segment that kills them is found and named. Where nothing comes for a while, the copies are
asked whether they live, on a thread of theirs that does nothing else: one that found no place again ends the run.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from xl3m_integrations.backends.base import Evidence
from xl3m_integrations.backends.batching import looked_ahead
from xl3m_integrations.backends.loading import load_tokenizer
from xl3m_integrations.backends.prompting import Prompting
from xl3m_integrations.certainty import Measure
from xl3m_integrations.errors import MissingExtraError, ModelLoadError, ScoringError, SettingError, XL3MError
from xl3m_integrations.types import Segment

RETRIES = 2  # how often a group is given to a copy again after one died on it
AHEAD = 2  # groups per copy that are under way
HELD = 4  # groups per copy that are under way or wait for an earlier one
PATIENCE = 10.0  # seconds without anything after which the copies are asked whether they live
REACH = 10.0  # seconds that a cluster's address may take to answer
WATCH = "watch"  # the copies' thread that tells it


class Replica:
    """One copy of the model, in a process of its own on some machine of the cluster."""

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        from xl3m_integrations.backends import make_backend

        self._backend = make_backend("transformers", name, settings, {})

    def about(self) -> dict[str, Any]:
        """What the driver must know of the model, and the process it lives in."""
        backend = self._backend
        return {
            "window": backend.window,
            "group_tokens": backend.group_tokens,
            "fingerprint": backend.fingerprint,
            "pid": os.getpid(),
        }

    def score(self, segments: Sequence[Segment], question: str, measure: Measure) -> list[Evidence]:
        """Evidence of a group."""
        return [evidence for _, evidence in self._backend.evidence(segments, question, measure)]

    def write(self, method: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Iterator[str]:
        """The pieces that a method of the generator writes."""
        # Not `yield from`: Ray sends into the generator, which a list does not take.
        for piece in getattr(self._backend, method)(*arguments, **options):  # noqa: UP028
            yield piece


class RayBackend(Prompting):
    """Scorer and generator on a Ray cluster.

    Args:
        name: Hub id, or a folder that every machine of the cluster sees.
        num_replicas: Copies of the model.
        num_gpus_per_replica: GPUs of each; 0 runs it on CPUs, a fraction shares one.
        num_cpus_per_replica: CPU cores of each.
        address: The cluster that this machine belongs to: `auto`, or `host:port` of its head; None uses one that this
            process has already joined, else starts one on this machine.
        start_timeout: Seconds that the copies may take to start, also where one died: to find a place, and to load the
            model.
        tokenizer: The model's tokenizer, a hub id or folder; None takes the model's.
        template: See `Prompting`.
        **settings: Further ones of `XL3M.from_pretrained`, for every copy.

    Raises:
        MissingExtraError: The extra `ray` is not installed.
        SettingError: The cluster cannot give what the copies need, or a number is out of its range.
        ModelLoadError: The copies could not load the model, or did not start in time.
    """

    def __init__(
        self,
        name: str | Path,
        *,
        num_replicas: int = 1,
        num_gpus_per_replica: float = 0.0,
        num_cpus_per_replica: float = 1.0,
        address: str | None = None,
        start_timeout: float = 600.0,
        tokenizer: Any = None,
        template: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(load_tokenizer(name if tokenizer is None else tokenizer), template)
        if num_replicas < 1 or min(num_gpus_per_replica, num_cpus_per_replica) < 0:
            raise SettingError(
                f"num_replicas is {num_replicas}, num_gpus_per_replica {num_gpus_per_replica} and num_cpus_per_replica "
                f"{num_cpus_per_replica}; at least 1 replica is needed, and none of the others may be negative."
            )
        self._ray = _joined(address)
        each = {"CPU": num_cpus_per_replica, "GPU": num_gpus_per_replica}
        _require_resources(self._ray, num_replicas, each)
        actor = self._ray.remote(
            num_cpus=num_cpus_per_replica,
            num_gpus=num_gpus_per_replica,
            max_restarts=-1,
            max_task_retries=RETRIES,
            concurrency_groups={WATCH: 1},
        )(Replica)
        place = str(Path(name).resolve()) if Path(name).is_dir() else str(name)
        shared = settings if template is None else settings | {"template": template}
        self._replicas = [actor.remote(place, shared) for _ in range(num_replicas)]
        self.start_timeout = start_timeout
        about = self._started(start_timeout)
        self.window: int = about[0]["window"]
        self.group_tokens: int = about[0]["group_tokens"]
        self.fingerprint: str = about[0]["fingerprint"]
        self.exit_layer: int | None = settings.get("exit_layer")

    def _started(self, timeout: float) -> list[dict[str, Any]]:
        """What every copy says of itself, once it has loaded the model."""
        try:
            about: list[dict[str, Any]] = self._ray.get([one.about.remote() for one in self._replicas], timeout=timeout)
        except self._ray.exceptions.GetTimeoutError:
            self.close()
            raise ModelLoadError(
                f"The {len(self._replicas)} replicas did not start within {timeout:.0f} seconds: other work may hold "
                "the cluster's resources (`ray status` tells), or the model loads slowly; ask for fewer, or raise "
                "start_timeout."
            ) from None
        except self._ray.exceptions.RayError as error:
            self.close()
            cause = getattr(error, "cause", None)
            if isinstance(cause, XL3MError):
                raise cause from None
            raise ModelLoadError(f"A replica could not load the model: {_last_line(error)}") from error
        return about

    def close(self) -> None:
        """End the copies and free what they hold."""
        for replica in self._replicas:
            self._ray.kill(replica)

    # ------------------------------------------------------------------------------------------ scoring
    def evidence(
        self, segments: Iterable[Segment], question: str, measure: Measure
    ) -> Iterator[tuple[Segment, Evidence]]:
        """See `Scorer.evidence`."""
        groups = looked_ahead(segments, self.group_tokens)
        waiting: deque[tuple[list[Segment], Any]] = deque()  # in order: a group, and the reference to its evidence
        running: dict[Any, int] = {}  # reference -> the copy that reads it
        busy = [0] * len(self._replicas)
        more = True
        # Left early, it lets the copies finish what is under way: Ray forgets the number of a task that is cancelled
        # before it began, and the copy then waits for that number for ever.
        while True:
            while more and len(waiting) < HELD * len(busy) and min(busy) < AHEAD:
                group = next(groups, None)
                if group is None:
                    more = False
                    break
                idlest = busy.index(min(busy))
                reference = self._score(idlest, group, question, measure)
                waiting.append((group, reference))
                running[reference] = idlest
                busy[idlest] += 1
            if not waiting:
                return
            if waiting[0][1] in running:
                busy[running.pop(self._first(list(running)))] -= 1
                continue
            group, reference = waiting.popleft()
            yield from zip(group, self._result(group, reference, question, measure), strict=True)

    def _score(self, replica: int, group: Sequence[Segment], question: str, measure: Measure) -> Any:
        bare = [Segment(one.index, one.start, one.end, "", tuple(one.ids), one.document) for one in group]
        return self._replicas[replica].score.remote(bare, question, measure)

    def _first(self, references: list[Any]) -> Any:
        """The first of them that is there; a stream is, where its next piece is."""
        while not (there := self._ray.wait(references, num_returns=1, timeout=PATIENCE)[0]):
            asked = [one.about.options(concurrency_group=WATCH).remote() for one in self._replicas]
            silent = self._ray.wait(asked, num_returns=len(asked), timeout=self.start_timeout)[1]
            if silent:
                raise ScoringError(
                    f"{len(silent)} of {len(asked)} replicas died and did not start again within "
                    f"{self.start_timeout:.0f} seconds: a machine may have left the cluster, or other work holds its "
                    "resources (`ray status` tells). With journal= the same call goes on from here once they are back."
                )
        return there[0]

    def _result(self, group: Sequence[Segment], reference: Any, question: str, measure: Measure) -> list[Evidence]:
        """A group's evidence; where copies died on it time and again, that of its halves."""
        try:
            found: list[Evidence] = self._ray.get(self._first([reference]))
            return found
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, XL3MError):
                raise cause from None
            raise ScoringError(f"A replica failed to read {_name(group)}: {_last_line(error)}") from error
        except self._ray.exceptions.RayError as error:
            if len(group) == 1:
                raise ScoringError(
                    f"Each replica that read {_name(group)} died, {RETRIES + 1} times: {_last_line(error)} Memory may "
                    "not suffice; lower segment_tokens or batch_tokens, or give each replica more."
                ) from error
        half = len(group) // 2
        found = []
        for part in (group[:half], group[half:]):
            found += self._result(part, self._score(0, part, question, measure), question, measure)
        return found

    # ------------------------------------------------------------------------------------------ reading
    def stream(
        self, context: str, question: str, *, max_new_tokens: int, stop: tuple[str, ...] = (), **options: Any
    ) -> Iterator[str]:
        """See `Generator.stream`; the first copy writes."""
        return self._written("stream", (context, question), max_new_tokens=max_new_tokens, stop=stop, **options)

    def complete(
        self, prompt: str, *, max_new_tokens: int, stop: tuple[str, ...] = (), **options: Any
    ) -> Iterator[str]:
        """See `Generator.complete`; the first copy writes."""
        return self._written("complete", (prompt,), max_new_tokens=max_new_tokens, stop=stop, **options)

    def complete_many(
        self, prompts: Sequence[str], *, max_new_tokens: int, stop: tuple[str, ...] = (), **options: Any
    ) -> list[str]:
        """See `Generator.complete_many`; the first copy writes."""
        pieces = self._written("complete_many", (list(prompts),), max_new_tokens=max_new_tokens, stop=stop, **options)
        return list(pieces)

    def _written(self, method: str, arguments: tuple[Any, ...], **options: Any) -> Iterator[str]:
        pieces = self._replicas[0].write.options(num_returns="streaming").remote(method, arguments, options)
        try:
            while (piece := next(self._first([pieces]), None)) is not None:
                yield self._ray.get(piece)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, XL3MError):
                raise error.cause from None
            raise ScoringError(f"A replica failed to write its answer: {_last_line(error)}") from error
        except self._ray.exceptions.RayError as error:
            raise ScoringError(f"The replica that wrote the answer died: {_last_line(error)}") from error


def _joined(address: str | None) -> Any:
    """Ray, connected to a cluster."""
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError.of("backend='ray'", "ray") from error
    if ray.is_initialized():
        return ray
    _require_reachable(address)
    try:
        ray.init(address=address, include_dashboard=None if address else False, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        raise _no_cluster(address, _last_line(error)) from error
    return ray


def _require_reachable(address: str | None) -> None:
    """Refuse at once what Ray would try for minutes."""
    if address is None or address in ("auto", "local"):
        return
    if "://" in address:
        raise SettingError(
            f"address is {address!r}, but replicas cannot be reached through a client; run this on a machine of the "
            "cluster, with address='auto' (`ray job submit` does so)."
        )
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH).close()
    except (OSError, ValueError) as error:
        raise _no_cluster(address, _last_line(error)) from error


def _no_cluster(address: str | None, why: str) -> SettingError:
    return SettingError(
        f"No Ray cluster is found at address={address!r}: {why} Start one with `ray start --head`, or leave address= "
        "out for one on this machine."
    )


def _require_resources(ray: Any, replicas: int, each: dict[str, float]) -> None:
    there = ray.cluster_resources()
    short = [
        f"{replicas * need:g} {kind}s ({need:g} for each of {replicas} replicas), it has {there.get(kind, 0):g}"
        for kind, need in each.items()
        if replicas * need > there.get(kind, 0)
    ]
    if short:
        raise SettingError(
            f"The Ray cluster cannot give {' and '.join(short)}; lower num_replicas, num_gpus_per_replica or "
            "num_cpus_per_replica, or add machines first."
        )


def _name(group: Sequence[Segment]) -> str:
    first, last = group[0], group[-1]
    which = f"segment {first.index}" if len(group) == 1 else f"segments {first.index} to {last.index}"
    where = f" of document {first.document}" if first.document else ""
    return f"{which}{where} (characters {first.start} to {last.end})"


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    line = lines[-1] if lines else type(error).__name__
    return line if line.endswith(".") else line + "."
