"""The service in its sandbox: what it reaches and what not, instances, and nothing left behind."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.acceptance.checks import wait_all_accepted
from tests.acceptance.service_rig import Rig
from tests.rig import service, systemd
from tests.rig.names import NameServer, TlsReceiver
from tests.rig.producer import events, publish
from tests.rig.receivers import Receivers
from tests.rig.service import UNITS, Service
from tests.rig.systemd import Systemd
from tests.rig.waiting import free_port, wait_for

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_second_wall_stops_what_the_configuration_would_let_through(
    rig: Rig, receivers: Receivers
) -> None:
    wall = (UNITS / "dispatcherd.service.d" / "10-addresses.conf").read_text()
    rig.service.drop_in("addresses", wall + "IPAddressAllow=127.0.0.1\n")
    quick = {"schedule_seconds": [0, 0.1], "max_attempts": 2}
    rig.start(
        {"id": "let", "url": receivers.url("let")},
        {
            "id": "kept",
            "url": f"http://127.0.0.2:{receivers.port}/kept",
            "retry": quick,
            "timeout_seconds": 1,
        },
    )
    if "does not support BPF/cgroup firewalling" in rig.service.log():
        pytest.skip("this kernel has no BPF on cgroups: IPAddressDeny= has no effect")
    rig.publish(range(20))
    wait_all_accepted(receivers, "let", range(20))
    rig.database.wait_until("SELECT count(*) FROM deliveries WHERE state = 2", 20)
    assert receivers.accepted("kept") == 0


def test_names_and_certificates_work_from_within_the_sandbox(rig: Rig, tmp_path: Path) -> None:
    name = "hooks.receiver.test"
    names = NameServer("127.0.0.153", {"*": ["127.0.0.1"]})
    receiver = TlsReceiver(tmp_path, name)
    try:
        # New files, so that the machine's own are only covered: inside, / is an overlay.
        rig.machine.inside("/etc/resolv.conf").unlink(missing_ok=True)
        rig.machine.write("/etc/resolv.conf", "nameserver 127.0.0.153\n")
        rig.machine.write("/etc/nsswitch.conf", "hosts: files dns\npasswd: files\ngroup: files\n")
        rig.machine.write("/etc/dispatcherd/ca.pem", receiver.certificate.read_text())
        rig.service.drop_in("ca", "[Service]\nEnvironment=SSL_CERT_FILE=/etc/dispatcherd/ca.pem\n")
        rig.start({"id": "a", "url": f"https://{name}:{receiver.port}/hook"})
        rig.publish(range(20))
        wait_for(lambda: len(receiver.ids) == 20, 30, "all over TLS")
    finally:
        receiver.stop()
        names.stop()
    assert name in names.asked


def test_the_sandbox_does_not_hide_the_hosts_own_addresses_from_the_guard(rig: Rig) -> None:
    ask = "from dispatcherd.pool import own_addresses; print('own', sorted(own_addresses()))"
    rig.service.drop_in(
        "ask",
        "[Service]\nEnvironment=PYTHONPATH=/opt/dispatcherd/source:/opt/dispatcherd/site-packages "
        "LD_LIBRARY_PATH=/opt/dispatcherd/python/lib\n"
        f'ExecStartPre={service.python()} -c "{ask}"\n',
    )
    rig.start()
    rig.service.wait_logged("own [")
    assert re.search(r"own \[.*'127.0.0.1'", rig.service.log())


def test_instances_of_the_template_share_a_group_and_one_without_a_partition_is_ready_too(
    rig: Rig, receivers: Receivers, machine: Systemd
) -> None:
    single = f"{rig.topic}-single"
    rig.kafka.create_topic(single, 1)
    config = rig.config({"id": "a", "url": receivers.url("a")}, kafka={"topics": [single]})
    rig.service.configure(config)
    ports = [free_port() for _ in range(2)]
    instances = [Service(machine, f"dispatcherd@{port}.service") for port in ports]
    try:
        for instance, port in zip(instances, ports, strict=True):
            instance.port = port
            instance.start()

        def partitions() -> list[str]:
            return sorted(i.status().split(";")[0] for i in instances)

        wait_for(lambda: partitions() == ["0 partitions", "1 partition"], 60, "their shares")
        publish(rig.kafka.bootstrap, single, events(range(50), partitions=1))
        wait_all_accepted(receivers, "a", range(50))
        for instance in instances:
            machine.systemctl("stop", instance.unit)
            instance.wait_logged("Deactivated successfully")
    finally:
        for instance in instances:
            instance.end()


_MAKER = """
import sys, time
from pathlib import Path
from tests.rig.systemd import Systemd
machine = Systemd(Path(sys.argv[1]), [])
machine.write("/etc/systemd/system/sleeper.service", "[Service]\\nExecStart=sleep 600\\n")
machine.systemctl("start", "sleeper")
print(machine.pid, flush=True)
time.sleep(600)
"""


def test_nothing_of_a_throwaway_systemd_outlives_a_killed_test_run(
    machine: Systemd, tmp_path: Path
) -> None:
    maker = subprocess.Popen(
        [sys.executable, "-c", _MAKER, str(tmp_path / "machine")],
        stdout=subprocess.PIPE, text=True, cwd=service.ROOT,
    )  # fmt: skip
    assert maker.stdout is not None
    init = psutil.Process(int(maker.stdout.readline()))
    try:
        inside = [init, *init.children(recursive=True)]
        assert "sleep" in [process.name() for process in inside]
    finally:
        maker.kill()
    maker.wait(10)
    _, alive = psutil.wait_procs(inside, timeout=20)
    assert not alive
    systemd.sweep()
    assert not systemd.remains(tmp_path, maker.pid)
