"""A few of the faults that `make soak` brings about by the hundred, at moments drawn by chance."""

import random
import sys
from pathlib import Path

import pytest
from faults.soak import Bench, Tally

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")


@pytest.fixture
def bench(zygote, tmp_path: Path, competition: Path) -> Bench:
    return Bench(zygote, tmp_path, competition, random.Random(), Tally())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adaptive", "default checkpoints"])
def test_what_is_interrupted_again_and_again_ends_with_the_same_bytes(bench: Bench, name: str):
    bench.scenario(name).interrupted(["SIGKILL", "SIGTERM", "SIGKILL"])
    assert bench.tally.clean, "\n".join([*bench.tally.troubles, bench.tally.table])


@pytest.mark.slow
def test_processes_that_share_a_folder_end_with_the_same_bytes_when_one_is_killed(bench: Bench):
    bench.scenario("static").shared(3, 1)
    assert bench.tally.clean, "\n".join([*bench.tally.troubles, bench.tally.table])
