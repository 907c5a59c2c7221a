"""Memory that one batch frees serves the next."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import json, resource, sys
import torch
from xl3m_integrations.backends.memory import keep_freed_memory
kept = KEEP and keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        blocks = [torch.ones(10 << 20) for _ in range(3)]  # 40 MB each: more than glibc itself ever keeps
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(json.dumps({"kept": kept, "faults": faults()}))
"""


def run(keep: bool = True, **environment: str) -> dict[str, int]:
    code = COUNT_FAULTS.replace("KEEP", str(keep))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back at every batch")
def test_pages_are_touched_once_and_not_at_every_batch() -> None:
    found, without = run(), run(keep=False)
    assert found["kept"] and found["faults"] < without["faults"] / 100
    assert without["faults"] >= 20 * 3 * 20  # pages of 4,096 bytes or, where the kernel joins them, of 2 MB


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc reads this variable")
def test_what_the_user_has_set_stays() -> None:
    assert not run(MALLOC_TRIM_THRESHOLD_="1000000")["kept"]
