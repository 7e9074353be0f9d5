"""`dispatcherd-receiver` alone: no dependencies, the pytest plugin, and peace with the daemon's.

Builds both wheels and installs them into fresh environments; pip needs its index for setuptools,
pytest and cryptography.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import dispatcherd
from dispatcherd import receiver

ROOT = Path(__file__).parents[3]
Run = Callable[..., str]

VERIFIES = """
import sys
from dispatcherd.receiver import NoMatchingSignature, Receiver
webhook = Receiver(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], clock=lambda: 1614265330)
headers = {"webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "webhook-timestamp": "1614265330",
           "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="}
print(webhook.verify(headers, b'{"test": 2432232314}').data)
try:
    webhook.verify(headers, b'{"test":2432232314}')
except NoMatchingSignature as error:
    print("refused")
print(sorted({name.partition(".")[0] for name in sys.modules} & {
    "aiohttp", "aiokafka", "asyncpg", "cryptography", "django", "fastapi", "flask", "orjson",
    "prometheus_client", "pydantic", "pytest", "redis", "starlette", "uvloop", "yaml"}))
"""
VERIFIED = "{'test': 2432232314}\nrefused\n[]\n"


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True,
                          timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def environment(folder: Path) -> Path:
    """A fresh environment; its interpreter, which sees nothing of this one."""
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env", cwd=folder)
    return folder / "env" / "bin" / "python"


def pip(python: Path, *arguments: str | Path) -> str:
    ours = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    return run(*ours, *arguments, cwd=python.parents[2])


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both distributions, the receiver's by way of its source archive."""
    out = tmp_path_factory.mktemp("wheels")
    source = out / "source"  # a build leaves files behind, and takes in what an older one left
    for name in ("dispatcherd", "receiver"):
        ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, source)
    run(sys.executable, "-m", "build", "-o", out, "receiver", cwd=source)
    run(sys.executable, "-m", "build", "--wheel", "-o", out, ".", cwd=source)
    return {path.name.split("-")[0]: path for path in out.glob("*.whl")}


def test_alone_it_installs_without_an_index_and_verifies(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    python = environment(tmp_path)
    pip(python, "install", "--no-index", wheels["dispatcherd_receiver"])
    listed = json.loads(pip(python, "list", "--format=json"))
    assert [one["name"] for one in listed] == ["dispatcherd-receiver"]
    assert run(python, "-I", "-c", VERIFIES, cwd=tmp_path) == VERIFIED
    missing = "from dispatcherd.receiver import Receiver\n" \
              "try: Receiver(['whpk_' + 'A' * 43])\n" \
              "except ImportError as error: print(error)"  # fmt: skip
    told = run(python, "-I", "-c", missing, cwd=tmp_path)
    assert "pip install 'dispatcherd-receiver[ed25519]'" in told


def test_with_its_extra_it_verifies_ed25519(wheels: dict[str, Path], tmp_path: Path) -> None:
    python = environment(tmp_path)
    wanted = f"{wheels['dispatcherd_receiver']}[ed25519]"
    pip(python, "install", "-c", ROOT / "constraints.txt", wanted)
    both = """
from dispatcherd.receiver import Receiver
from dispatcherd.receiver.signing import new_key_pair, sign_headers
private, public = new_key_pair()
webhook = Receiver([public], clock=lambda: 5)
print(webhook.verify(sign_headers([private], "msg_1", 5, b"{}"), b"{}").id)
"""
    assert run(python, "-I", "-c", both, cwd=tmp_path) == "msg_1\n"


@pytest.mark.parametrize("daemon_first", [True, False])
def test_beside_the_daemons_distribution_both_are_importable(
    wheels: dict[str, Path], tmp_path: Path, daemon_first: bool
) -> None:
    python = environment(tmp_path)
    names = ["dispatcherd_webhooks", "dispatcherd_receiver"]
    for name in names if daemon_first else reversed(names):
        pip(python, "install", "--no-index", "--no-deps", wheels[name])
    assert run(python, "-I", "-c", VERIFIES, cwd=tmp_path) == VERIFIED
    told = run(python, "-I", "-c", "import dispatcherd; print(dispatcherd.__version__)",
               cwd=tmp_path)  # fmt: skip
    assert told.strip() == dispatcherd.__version__


def test_the_daemons_distribution_holds_the_same_receiver(wheels: dict[str, Path]) -> None:
    contents = []
    for name in ("dispatcherd_webhooks", "dispatcherd_receiver"):
        with zipfile.ZipFile(wheels[name]) as wheel:
            contents.append({
                member: wheel.read(member) for member in wheel.namelist()
                if member.startswith("dispatcherd/receiver/")
            })  # fmt: skip
            assert not [member for member in wheel.namelist() if member.startswith("receiver/")]
    assert contents[0] == contents[1]
    assert "dispatcherd/receiver/py.typed" in contents[0]
    assert "dispatcherd/receiver/store/sql.py" in contents[0]


def test_both_have_one_version() -> None:
    assert receiver.__version__ == dispatcherd.__version__


SAMPLE = """
import http.client
from urllib.parse import urlsplit

import pytest


def post(url, request):
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request("POST", "/", request.body, request.headers)
    return connection.getresponse().status


def test_what_was_sent_arrives(webhook_receiver, signed_request):
    assert post(webhook_receiver.url, signed_request({"type": "order.created"}, id="e1")) == 200
    assert post(webhook_receiver.url, signed_request([{"type": "a"}, {"type": "b"}])) == 200
    events = webhook_receiver.wait_for(3)
    assert [event.type for event in events] == ["order.created", "a", "b"]
    assert events[0].id == "e1"


def test_what_is_forged_is_refused(webhook_receiver, signed_request, webhook_secret):
    assert signed_request.secret == webhook_secret == webhook_receiver.secret
    assert post(webhook_receiver.url, signed_request().tampered()) == 401
    assert webhook_receiver.refused[0].cause == "no_matching_signature"
    with pytest.raises(AssertionError, match="0 of 1 webhooks came; refused: no signature"):
        webhook_receiver.wait_for(1, timeout_seconds=0.01)


def test_it_answers_as_it_is_told(webhook_receiver, signed_request):
    webhook_receiver.status = 503
    assert post(webhook_receiver.url, signed_request()) == 503
"""


def test_its_pytest_plugin_is_there_once_it_is_installed(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    python = environment(tmp_path)
    pip(python, "install", "-c", ROOT / "constraints.txt", "pytest", wheels["dispatcherd_receiver"])
    (tmp_path / "test_sample.py").write_text(SAMPLE)
    told = run(python, "-I", "-m", "pytest", "-q", "test_sample.py", cwd=tmp_path)
    assert "3 passed" in told
    told = run(python, "-I", "-m", "pytest", "--fixtures", "-q", cwd=tmp_path)
    for name in ("webhook_receiver", "signed_request", "webhook_secret"):
        assert re.search(rf"^{name}\b", told, re.MULTILINE)
