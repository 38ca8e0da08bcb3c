"""Pretrained weights without a network: told at once; cached ones need none."""

import errno
import os
import socket
import subprocess
import sys
import threading
import urllib.request

import pytest
import timm
import torch
from safetensors.torch import save_file
from support.refusals import refusal_of

from kit.model import hub
from kit.model.build import build_model, weights_digest
from kit.model.config import ModelConfig

NO_HUB = "gcvit_tiny"  # its weights are at an address, not on the hub
WAY_OUT = "; check the network, or give the path of a local weight file"


def build(name: str, seed: int = 0):
    return build_model(ModelConfig(name=name, weights="hub"), 3, 3, 32, seed)


def cannot_be_had(name: str, why: str) -> str:
    return f"model.weights: the pretrained weights of {name} cannot be had from timm's hub ({why}){WAY_OUT}"


@pytest.fixture
def silent():
    """The address of a server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def refusing():
    """The address of a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def answering(status: str):
    """The address of a server whose every answer has this status."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            with server.accept()[0] as client:
                client.recv(65536)
                client.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_the_hub_without_a_network_is_told_at_once(tmp_path, silent, refusing):
    """In a process of its own: the hub's client reads HF_HUB_OFFLINE when it is imported."""
    code = (
        "import os, sys, huggingface_hub; from kit.model.build import build_model\n"
        "from kit.model.config import ModelConfig; from kit.core.errors import KitError\n"
        "from kit.model import hub; hub.PATIENCE = 0.5\n"
        "for os.environ['HTTPS_PROXY'] in sys.argv[1:]:\n"
        "    huggingface_hub.close_session()\n"
        "    try: build_model(ModelConfig(name='resnet18', weights='hub'), 3, 3, 64, 0)\n"
        "    except KitError as error: print(error)"
    )
    variables = {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), "NO_PROXY": "", "no_proxy": ""}
    command = [sys.executable, "-c", code, refusing, silent]
    ran = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=True)
    refused, unanswered = ran.stdout.splitlines()
    assert refused == cannot_be_had("resnet18", "asking https://huggingface.co: [Errno 111] Connection refused")
    assert unanswered == cannot_be_had("resnet18", "https://huggingface.co does not answer within 0.5 s")


@pytest.fixture
def impatient(monkeypatch, tmp_path):
    """Patience of half a second, empty caches, and the way to anywhere by a proxy."""

    def by(proxy: str) -> None:
        monkeypatch.setenv("https_proxy", proxy)
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxy it was made for

    monkeypatch.setattr(hub, "PATIENCE", 0.5)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    return by


def test_an_address_that_is_silent_or_refuses_is_told_at_once(impatient, silent, refusing):
    impatient(refusing)
    told = "asking https://github.com: <urlopen error [Errno 111] Connection refused>"
    assert refusal_of(build, NO_HUB) == cannot_be_had(NO_HUB, told)
    impatient(silent)
    assert refusal_of(build, NO_HUB) == cannot_be_had(NO_HUB, "https://github.com does not answer within 0.5 s")


def test_a_name_that_is_looked_up_for_ever_is_not_waited_for(impatient, monkeypatch):
    forever = threading.Event()
    monkeypatch.setattr(hub, "_ask_server", lambda address: forever.wait())
    assert "https://github.com does not answer within" in refusal_of(build, NO_HUB)
    forever.set()


@pytest.mark.parametrize(("status", "reached"), [("200 OK", True), ("404 Not Found", True), ("503 Busy", False)])
def test_a_server_that_answers_is_left_to_timm_unless_it_fails(impatient, monkeypatch, status, reached):
    server = answering(status)
    published = timm.get_pretrained_cfg(NO_HUB)
    monkeypatch.setattr(published, "url", f"{server}/weights-ab.pth")
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: published)
    before = socket.getdefaulttimeout()
    if reached:
        with hub.within_reach(NO_HUB):
            assert socket.getdefaulttimeout() == 0.5  # of torch's download, which has none
    else:
        with pytest.raises(ConnectionError, match=f"^{server} answers with 503$"), hub.within_reach(NO_HUB):
            pass
    assert socket.getdefaulttimeout() == before


def test_weights_in_the_cache_need_no_answer(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "_need_answer", lambda *_: pytest.fail("it asked"))
    kept = tmp_path / "models--timm--test_resnet.r160_in1k"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs/main").write_text("a" * 40)
    (kept / "snapshots" / ("a" * 40)).mkdir(parents=True)
    torch.manual_seed(1)
    published = timm.create_model("test_resnet")
    save_file(published.state_dict(), kept / "snapshots" / ("a" * 40) / "model.safetensors")
    model = build("test_resnet")
    assert torch.equal(model.conv1[0].weight, published.conv1[0].weight)
    assert weights_digest(model) == weights_digest(build("test_resnet"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "the disk is full ([Errno 28] No space left on device)",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "you are not allowed to write there ("),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk is full (I/O error: "),
    ],
)
def test_weights_that_cannot_be_kept_are_no_matter_of_the_network(monkeypatch, error, reason):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("kit.model.hub._need_answer", lambda *_: None)
    monkeypatch.setattr("timm.create_model", fail)
    line = refusal_of(build, "resnet18")
    assert line.startswith(f"resnet18: what comes from the hub could not be kept: {reason}")
    assert line.endswith("; make room, or set HF_HOME to a folder that can be written")
