"""The systemd units, checked offline by systemd's own tools."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from dispatcherd import address
from tests.rig import systemd
from tests.rig.service import UNITS

NAMES = ["dispatcherd.service", "dispatcherd@.service"]
WORST_EXPOSURE = 1.2


def _analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments],
        capture_output=True, text=True, timeout=60, env={**os.environ, "SYSTEMD_COLORS": "0"},
    )  # fmt: skip


def _lay_out(folder: Path, drop_ins: bool) -> None:
    """The units as installed, with an ExecStart= that exists."""
    program = folder / "bin" / "dispatcherd"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in NAMES:
        text = (UNITS / name).read_text()
        (folder / name).write_text(text.replace("/opt/dispatcherd/bin", str(program.parent)))
        if not drop_ins:
            continue
        (folder / f"{name}.d").mkdir()
        for path in sorted((UNITS / "dispatcherd.service.d").iterdir()):
            (folder / f"{name}.d" / path.name).write_text(path.read_text())


@pytest.mark.parametrize("unit", ["dispatcherd.service", "dispatcherd@9464.service"])
@pytest.mark.parametrize("drop_ins", [False, True], ids=["alone", "with_every_drop_in"])
def test_the_unit_verifies_without_a_word(tmp_path: Path, unit: str, drop_ins: bool) -> None:
    systemd.need()
    _lay_out(tmp_path, drop_ins)
    if drop_ins and systemd.missing(254) is not None:
        for path in tmp_path.glob("*.d/40-backoff.conf"):
            path.unlink()  # its keys are of systemd 254
    done = _analyze("verify", "--man=no", str(tmp_path / unit))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", NAMES)
def test_the_units_exposure_is_low(tmp_path: Path, name: str) -> None:
    systemd.need()
    _lay_out(tmp_path, drop_ins=False)
    done = _analyze("security", "--offline=true", "--no-pager", str(tmp_path / name))
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, (done.stdout, done.stderr)
    assert float(found[1]) <= WORST_EXPOSURE, done.stdout


def test_the_template_differs_from_the_unit_by_the_admin_port_only() -> None:
    def directives(name: str) -> list[str]:
        lines = (UNITS / name).read_text().splitlines()
        return [line for line in lines if line and not line.startswith("#")]

    plain, template = (directives(name) for name in NAMES)
    assert [line for line in template if line not in plain] == [
        "Description=dispatcherd: webhooks out of Kafka (admin port %i)",
        "Environment=DISPATCHERD_ADMIN__PORT=%i",
    ]
    assert [line for line in plain if line not in template] == [
        "Description=dispatcherd: webhooks out of Kafka"
    ]


def test_the_second_wall_denies_what_the_daemon_forbids() -> None:
    text = (UNITS / "dispatcherd.service.d" / "10-addresses.conf").read_text()
    denied = re.findall(r"^IPAddressDeny=(\S+)$", text, re.MULTILINE)
    assert denied == [network for network, _ in address._FORBIDDEN]
