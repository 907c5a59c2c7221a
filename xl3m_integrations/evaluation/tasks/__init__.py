"""Tasks: each makes documents of any length, fresh from a seed, whose question only the planted statements answer.

Names and parameters of the `niah` and `vt` tasks are RULER's (arXiv 2404.06654, appendix B). To add a task: write a
frozen dataclass with `name` and `make`, and add it to `TASKS`.
"""

from __future__ import annotations

from collections.abc import Sequence

from xl3m_integrations.bundled.corpus import VALUES
from xl3m_integrations.errors import SettingError
from xl3m_integrations.evaluation.tasks.base import Task, adjective_noun, example_of, seven_digits
from xl3m_integrations.evaluation.tasks.chains import TwoHop, VariableTracking
from xl3m_integrations.evaluation.tasks.hard import LookAlike, LookAlikes, Paraphrase, Straddle
from xl3m_integrations.evaluation.tasks.needles import Lines, Niah, PassKey

__all__ = ["TASKS", "Task", "example_of", "get_tasks"]

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Niah("niah_single_1", type_haystack="noise"),
        Niah("niah_single_2"),
        Niah("niah_single_3", type_needle_v="uuids"),
        Niah("niah_multikey_1", num_needle_k=4),
        Niah("niah_multikey_2", type_haystack="needle"),
        Niah("niah_multikey_3", type_haystack="needle", type_needle_k="uuids", type_needle_v="uuids"),
        Niah("niah_multivalue", num_needle_v=4),
        Niah("niah_multiquery", num_needle_q=4),
        PassKey(),
        Lines("kv", "{K}: {V}", "What is the value of {K}?", adjective_noun, seven_digits),
        Lines(
            "kv_uuid",
            '"{K}": "{V}",',
            'What is the value associated with the specified key? Key: "{K}"',
            VALUES["uuid"],
            VALUES["uuid"],
        ),
        Lines(
            "lines",
            "line {K}: REGISTER_CONTENT is <{V}>",
            "Tell me what is the <REGISTER_CONTENT> in line {K}? I need the number.",
            adjective_noun,
            lambda rng: str(rng.randrange(1, 50_000)),
        ),
        VariableTracking("vt_2", 2),
        VariableTracking("vt_3", 3),
        VariableTracking("vt_4", 4),
        TwoHop(),
        Straddle(),
        Paraphrase(),
        LookAlike(),
        LookAlikes("lookalike_10", 10),
    )
}


def get_tasks(names: Sequence[str]) -> list[Task]:
    """The tasks of these names, in order; `niah` or `vt` stands for all that begin so, `all` for all.

    Raises:
        SettingError: No task has, or begins with, one of the names.
    """
    found: dict[str, Task] = {}
    for name in names:
        own = [task for task in TASKS.values() if name in ("all", task.name)]
        own = own or [task for task in TASKS.values() if task.name.startswith(f"{name}_")]
        if not own:
            raise SettingError(f"Unknown task {name!r}; choose from {', '.join(TASKS)}, the beginning of some, or all.")
        found |= {task.name: task for task in own}
    return list(found.values())
