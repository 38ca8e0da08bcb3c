"""Interrupt trainings by the hundred, and count what was lost; `make soak` runs it.

A scenario is run once undisturbed. Then it is begun again and again in fresh folders, and each time it is killed,
terminated or interrupted at moments drawn by chance, several times in a row, and goes on after each; in the end it
has to give the same bytes as undisturbed. Moments are drawn, so no two soaks are alike: what is asserted holds
whatever the moment.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from faults.scenarios import ALWAYS, SCENARIOS, WORDS
from support.colours import experiment_content, write_competition
from support.zygote import Child, Zygote

FAULTS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGINT twice")
CODES = {"SIGKILL": (-9,), "SIGTERM": (143,), "SIGINT": (130,), "SIGINT twice": (130,)}
OF_TIME = ("seconds", "images_per_second", "digest", "versions")  # fields of run.json that differ by the hour
LONGEST = 180.0  # seconds that a tiny training, or its end, may take on a busy machine


@dataclass
class Tally:
    """What came of faults, by kind."""

    tried: Counter[str] = field(default_factory=Counter)
    survived: Counter[str] = field(default_factory=Counter)
    identical: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, survived: bool = False, identical: bool = False, trouble: str = "") -> None:
        """Count one fault, or that it was survived, or that all was identical in the end."""
        with self._lock:
            if trouble:
                self.troubles.append(f"{kind}: {trouble}")
            counter = self.identical if identical else self.survived if survived else self.tried
            counter[kind] += not trouble

    @property
    def table(self) -> str:
        """The counts, a line a kind of fault."""
        rows = [("fault", "tried", "survived", "identical")]
        rows += [(kind, *(str(each[kind]) for each in self._counters)) for kind in sorted(self.tried)]
        rows.append(("all", *(str(each.total()) for each in self._counters)))
        return "\n".join(f"{row[0]:42}" + "".join(f"{cell:>11}" for cell in row[1:]) for row in rows)

    @property
    def _counters(self) -> tuple[Counter[str], Counter[str], Counter[str]]:
        return self.tried, self.survived, self.identical

    @property
    def clean(self) -> bool:
        """Whether every fault was survived without a trace."""
        return not self.troubles and self.tried.total() > 0 and self.tried == self.survived == self.identical


@dataclass
class Bench:
    """Where one lane works: a scenario's config, its folders, and what it gives undisturbed."""

    zygote: Zygote
    folder: Path
    competition: Path
    random: random.Random
    tally: Tally
    with_kernel: bool = False

    def scenario(self, name: str) -> "Scenario":
        """Run a scenario undisturbed."""
        place = self.folder / name.replace(" ", "-").replace("'", "")
        place.mkdir()
        config = place / "config.yaml"
        content = experiment_content(self.competition, **SCENARIOS[name])
        content["policies"] = SCENARIOS[name].get("policies", content["policies"])
        config.write_text(yaml.safe_dump(content | {"folds": {"k": 2}}))
        began = time.monotonic()
        scenario = Scenario(self, name, place, config, WORDS.get(name, ()))
        child = scenario.start(place / "whole")
        if (code := self.zygote.wait(child, LONGEST)) != 0:
            raise RuntimeError(f"{name}: undisturbed, it ended with {code}:\n{child.told}")
        scenario.whole, scenario.seconds = results(place / "whole"), time.monotonic() - began
        return scenario


@dataclass
class Scenario:
    """One experiment, and what it gives when nothing disturbs it."""

    bench: Bench
    name: str
    place: Path
    config: Path
    words: Sequence[str]
    whole: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    rounds: int = 0

    def start(self, output: Path) -> Child:
        """Begin, or go on with, the run in a folder."""
        self.rounds += 1
        log = self.place / f"{self.rounds}.log"
        return self.bench.zygote.start("run", self.config, "--output", output, *self.words, log=log)

    def interrupted(self, faults: Sequence[str]) -> None:
        """Interrupt runs by each of the faults in turn, and let each run end."""
        left = list(faults)
        for _ in range(2 * len(faults)):  # of those that had ended before their fault came
            output, happened = self.place / f"broken{self.rounds}", list[str]()
            while left:
                child = self.start(output)
                time.sleep(self.bench.random.uniform(0.1, 0.7 * self.seconds))
                if self.bench.zygote.wait(child, 0) is not None:
                    break
                kind = f"{left[0]}, {self.name}"
                happened.append(kind)
                self.bench.tally.add(kind)
                self.survives(child, left.pop(0), kind)
            self.ends(output, happened)
            if not left:
                return

    def survives(self, child: Child, fault: str, kind: str) -> None:
        """Send the fault and look how the process ends."""
        zygote, tally = self.bench.zygote, self.bench.tally
        number = signal.Signals[fault.split()[0]]
        child.send(number, everyone=number == signal.SIGINT)
        if fault.endswith("twice"):
            time.sleep(self.bench.random.uniform(0, 0.2))
            child.send(number, everyone=True)
        code = zygote.wait(child, LONGEST)
        if code is None:
            child.send(signal.SIGKILL, everyone=True)
            tally.add(kind, trouble=f"did not end:\n{child.told}")
        elif code not in (*CODES[fault], 0):  # it may just have been done
            tally.add(kind, trouble=f"exit code {code}:\n{child.told}")
        elif "Traceback" in child.told:
            tally.add(kind, trouble=f"a traceback:\n{child.told}")
        elif left := child.left():
            tally.add(kind, trouble=f"processes are left: {left}")
        else:
            tally.add(kind, survived=True)

    def ends(self, output: Path, happened: Sequence[str]) -> None:
        """Go on to the end and compare with what came of it undisturbed."""
        child = self.start(output)
        code = self.bench.zygote.wait(child, LONGEST)
        odd = differences(self.whole, results(output)) if code == 0 else [f"exit code {code}:\n{child.told}"]
        for kind in happened:
            if odd:
                self.bench.tally.add(kind, trouble=f"not identical: {'; '.join(odd)}")
            else:
                self.bench.tally.add(kind, identical=True)
        if not odd:
            shutil.rmtree(output)

    def shared(self, processes: int, kills: int) -> None:
        """Let several processes work on one folder, and kill some of them."""
        output, kind = self.place / f"shared{self.rounds}", f"{processes} processes, {kills} killed, {self.name}"
        self.bench.tally.add(kind)
        children = [self.start(output) for _ in range(processes)]
        for child in children[:kills]:
            time.sleep(self.bench.random.uniform(0.1, 0.7 * self.seconds))
            child.send(signal.SIGKILL)
        codes = [self.bench.zygote.wait(child, LONGEST) for child in children]
        wrong = [
            f"exit code {code}:\n{child.told}"
            for number, (child, code) in enumerate(zip(children, codes, strict=True))
            if code != 0 and not (number < kills and code == -9)
        ]
        if wrong:
            self.bench.tally.add(kind, trouble="; ".join(wrong))
            return
        self.bench.tally.add(kind, survived=True)
        self.ends(output, [kind])  # which takes away what the killed ones left


def kernel_soaked(bench: Bench, faults: Sequence[str]) -> None:
    """Interrupt a built train kernel by each of the faults, and let it go on in the same working folder."""
    place = bench.folder / "kernel"
    place.mkdir()
    (place / "competitions").mkdir()
    (place / "competitions" / "colours").symlink_to(bench.competition)
    content = experiment_content(bench.competition, training=ALWAYS, kernel={"owner": "tester"})
    content["competition"]["slug"] = "colours"
    (place / "kernel.yaml").write_text(yaml.safe_dump(content | {"name": "small-one", "folds": {"k": 2}}))
    words = ("kernel", "build", place / "kernel.yaml", "--kind", "train", "--output", place)
    child = bench.zygote.start(*words, log=place / "build.log")
    if bench.zygote.wait(child, LONGEST):
        raise RuntimeError(child.told)
    file = place / "kernels" / "build" / "small-one-train" / "small-one-train.py"
    variables = {"KIT_INPUT": str(place), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def begin(working: Path) -> tuple[subprocess.Popen, Child]:
        working.mkdir(exist_ok=True)
        log = working.with_suffix(".log")
        with open(log, "w", encoding="utf-8") as stream:
            process = subprocess.Popen(
                [sys.executable, str(file)],
                stdout=stream,
                stderr=stream,
                env=os.environ | variables | {"KIT_WORKING": str(working)},
                start_new_session=True,
            )
        return process, Child(process.pid, log)

    began = time.monotonic()
    process, child = begin(place / "whole")
    if process.wait(LONGEST):
        raise RuntimeError(child.told)
    seconds, happened = time.monotonic() - began, list[str]()
    for fault in faults:
        process, child = begin(place / "broken")
        time.sleep(bench.random.uniform(0.5 * seconds, seconds))
        if process.poll() is None:
            happened.append(f"{fault}, a kernel")
            bench.tally.add(happened[-1])
            child.send(signal.Signals[fault], everyone=True)
            process.wait(LONGEST)
            left = child.left()
            bench.tally.add(happened[-1], survived=not left, trouble=f"processes are left: {left}" if left else "")
    process, child = begin(place / "broken")
    code = process.wait(LONGEST)
    odd = differences(results(place / "whole"), results(place / "broken")) if not code else [child.told]
    for kind in happened:
        bench.tally.add(kind, identical=not odd, trouble=f"not identical: {'; '.join(odd)}" if odd else "")


def results(output: Path) -> dict[str, str]:
    """A digest of every file that a run gives, by its path; of run.json without what differs by the hour."""
    found = {}
    for path in sorted(file for part in ("runs", "submissions") for file in (output / part).rglob("*")):
        if not path.is_file() or path.name == "manifest.json":  # which holds digests of run.json
            continue
        content = path.read_bytes()
        if path.name == "run.json":
            kept = {name: value for name, value in json.loads(content).items() if name not in OF_TIME}
            content = json.dumps(kept, sort_keys=True).encode()
        found[path.relative_to(output).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Name the files that two results do not have in common."""
    return [
        f"{path} {'differs' if path in one and path in other else 'is not in both'}"
        for path in sorted({*one, *other})
        if one.get(path) != other.get(path)
    ]


def lane(bench: Bench, names: Sequence[str], rounds: int, until: float) -> None:
    """Soak some scenarios, round after round, while there is time."""
    if bench.with_kernel:
        kernel_soaked(bench, ("SIGKILL", "SIGTERM", "SIGKILL", "SIGTERM", "SIGKILL", "SIGINT"))
    scenarios = [bench.scenario(name) for name in names]
    for number in range(rounds):
        for scenario in scenarios:
            if time.monotonic() > until:
                return
            faults = list(FAULTS[:3]) * 2 + ["SIGINT twice"]
            bench.random.shuffle(faults)
            scenario.interrupted(faults)
            scenario.shared(2 + number % 2, 1)


def soak(rounds: int, minutes: float, lanes: int, seed: int) -> Tally:
    """Soak all scenarios in so many lanes side by side; return what came of it."""
    tally, until = Tally(), time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory(prefix="soak-") as place:
        competition = write_competition(Path(place) / "colours")
        names = list(SCENARIOS)

        def work(number: int) -> None:
            folder = Path(place) / f"lane{number}"
            folder.mkdir()
            try:
                with Zygote() as zygote:
                    bench = Bench(
                        zygote, folder, competition, random.Random(f"{seed} {number}"), tally, number == 0
                    )
                    lane(bench, names[number::lanes], rounds, until)
            except Exception as error:
                tally.add("lane", trouble=f"{number}: {error}")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(lanes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return tally


def _arguments() -> Iterator[int | float]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8, help="through all scenarios")
    parser.add_argument("--minutes", type=float, default=27, help="after which no further round is begun")
    parser.add_argument("--lanes", type=int, default=2, help="side by side")
    parser.add_argument("--seed", type=int, default=time.time_ns())
    given = parser.parse_args()
    yield from (given.rounds, given.minutes, given.lanes, given.seed)


if __name__ == "__main__":
    tally = soak(*_arguments())  # type: ignore[arg-type]
    print(*tally.troubles, tally.table, sep="\n")
    sys.exit(not tally.clean)
