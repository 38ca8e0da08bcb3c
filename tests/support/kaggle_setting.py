"""Fixtures: Kaggle on 127.0.0.1, commands in this process, and kernels that Kaggle runs as rehearsals do."""

import sys
from pathlib import Path

import pytest
from support.fake_kaggle import FakeKaggle, KernelVersion

from kit.core.paths import mount_points
from kit.kaggle.rehearsal.sandbox import Mount, run_isolated


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server that the real client in this process talks to; commands run in an empty folder."""
    with FakeKaggle() as server:
        server.lead_here(monkeypatch, tmp_path / "home")
        folder = tmp_path / "work"
        folder.mkdir()
        monkeypatch.chdir(folder)
        yield server
        assert not server.unknown
        assert not server.errors


@pytest.fixture
def said() -> list[str]:
    """The lines that `kaggle` says, and what is told to say them here."""
    return []


@pytest.fixture
def waits() -> list[float]:
    """The seconds that `kaggle` would have slept between attempts."""
    return []


@pytest.fixture
def kaggle(server, said, waits):
    """The real client, signed in to the server; it does not sleep."""
    from kit.kaggle.client import Kaggle

    return Kaggle(said.append, waits.append)


def no_pause(seconds: float) -> None:
    """For what takes something to sleep with."""


@pytest.fixture
def kit(monkeypatch, capsys):
    """Runs a command line in this process; gives exit code and output."""

    def call(*words) -> tuple[int, str]:
        from kit.cli.main import main

        monkeypatch.setattr(sys, "argv", ["kit", *map(str, words)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
        told = capsys.readouterr()
        return code, told.out + told.err

    return call


@pytest.fixture
def impatient(monkeypatch):
    """No wait between two looks."""
    import kit.kaggle.datasets
    import kit.kaggle.kernel.push
    import kit.kaggle.kernel.sessions
    import kit.kaggle.retry
    import kit.kaggle.submit

    for module in (kit.kaggle.kernel.push, kit.kaggle.kernel.sessions, kit.kaggle.datasets, kit.kaggle.submit):
        monkeypatch.setattr(module, "POLL", 0.05)
    monkeypatch.setattr(kit.kaggle.retry, "LONGEST_WAIT", 0.01)
    monkeypatch.setattr(kit.kaggle.retry, "LOOKS", (0.0,))


def runs_kernels(server: FakeKaggle, folder: Path, competitions: dict[str, Path]):
    """A runner for the server: a pushed kernel runs isolated, with what it attaches mounted."""

    def run(version: KernelVersion):
        request, working = version.request, folder / f"{version.slug}-v{version.number}"
        script = folder / f"{version.slug}-v{version.number}.py"
        script.write_text(version.source, encoding="utf-8")
        mounts = [
            Mount(competitions[slug], mount_points(slug)[0])
            for slug in request.get("competitionDataSources") or []
        ]
        for ref in request.get("kernelDataSources") or []:
            mounts.append(Mount(server.kernels[ref][-1].files, mount_points(ref)[1]))
        lines: list[str] = []
        outcome = run_isolated(
            script, working, mounts, time_limit=request["sessionTimeoutSeconds"], on_line=lines.append
        )
        status = "COMPLETE" if outcome.exit_code == 0 else "ERROR"
        failure = "" if status == "COMPLETE" else f"Your notebook ended with exit code {outcome.exit_code}"
        return status, "\n".join(lines) + "\n", working, failure

    return run
