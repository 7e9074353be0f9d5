"""What a receiver asks of its caller: a certificate, a header; from files, renewed by a reload."""

from __future__ import annotations

import signal
import ssl
from collections.abc import Callable
from pathlib import Path

from tests.acceptance.scene import Scene
from tests.rig.authority import Authority
from tests.rig.tinyproxy import PASSWORD, USERNAME, Tinyproxy
from tests.rig.tls_receiver import TlsReceiver
from tests.rig.waiting import wait_for

REASONS = "SELECT r.name FROM attempts a JOIN reasons r ON r.id = a.reason ORDER BY a.at"


def test_certificate_and_header_come_from_files_and_are_renewed_by_a_reload(
    scene: Callable[..., Scene], tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "authority")
    context = authority.serving(["127.0.0.1"])
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cafile=authority.file())
    receiver = TlsReceiver(context)
    certificate, key = authority.issue(["expired"], expired=True)
    token = tmp_path / "token"
    token.write_text("Bearer first-token-of-all\n")
    endpoint = {
        "id": "billing",
        "url": receiver.url,
        "headers": {"Authorization": {"file": str(token)}},
        "tls": {
            "ca_file": str(authority.file()),
            "client_certificate_file": str(certificate),
            "client_key": {"file": str(key)},
        },
        "retry": {"schedule_seconds": [0, 1]},
    }
    here = scene(1)
    one = here.start(endpoint)
    here.publish(range(1))
    wait_for(lambda: "endpoint_not_reached" in one.log(), 30, "the failure in the log")
    assert '"reason":"tls_client_certificate"' in one.log()
    assert "certificate expired" in one.log()
    wait_for(lambda: here.database.fetch(REASONS), 30, "the failure in a row")
    assert {row["name"] for row in here.database.fetch(REASONS)} == {"tls_client_certificate"}
    assert receiver.asked == []

    valid, its_key = authority.issue(["dispatcherd"])
    valid.replace(certificate)
    its_key.replace(key)
    token.write_text("Bearer second-token-of-all\n")
    one.signal(signal.SIGHUP)
    wait_for(lambda: receiver.asked, 30, "the delivery")
    assert receiver.asked == [(receiver.asked[0][0], "dispatcherd")]
    assert b"\r\nAuthorization: Bearer second-token-of-all" in receiver.heads[0]
    wait_for(lambda: "endpoint_reached_again" in one.log(), 30, "the recovery in the log")

    key.write_text("no key")
    one.signal(signal.SIGHUP)
    wait_for(lambda: "reload_refused" in one.log(), 30, "the refusal")
    assert "endpoints[0] (billing).tls.client_key" in one.log()
    here.publish(range(1, 2))
    wait_for(lambda: len(receiver.asked) == 2, 30, "a delivery by what was in force")
    shown = one.command("check-config", "--no-secrets")
    assert shown.returncode == 0, shown.stderr
    for text in (one.log(), shown.stdout):
        assert "token-of-all" not in text
    one.stop()
    receiver.stop()


def test_events_are_delivered_through_an_egress_proxy(
    scene: Callable[..., Scene], tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "authority")
    receiver = TlsReceiver(authority.serving(["127.0.0.1"]))
    proxy = Tinyproxy(tmp_path, connect_port=receiver.port)
    password = tmp_path / "password"
    password.write_text("wrong-at-first\n")
    endpoint = {
        "id": "billing",
        "url": receiver.url,
        "tls": {"ca_file": str(authority.file())},
        "retry": {"schedule_seconds": [0, 1]},
    }
    network = {
        "allowed_networks": ["127.0.0.0/8"],
        "proxy": {"url": proxy.url, "username": USERNAME, "password": {"file": str(password)}},
    }
    here = scene(1)
    one = here.start(endpoint, network=network)
    here.publish(range(3))
    wait_for(lambda: '"reason":"proxy_refused"' in one.log(), 30, "the refusal in the log")
    assert "network.proxy.username and password" in one.log()
    assert receiver.asked == []
    password.write_text(f"{PASSWORD}\n")
    one.stop()
    one.start()
    wait_for(lambda: len(receiver.asked) == 3, 30, "the deliveries")
    assert f"CONNECT 127.0.0.1:{receiver.port}" in proxy.log()
    one.stop()
    assert PASSWORD not in one.log() and "wrong-at-first" not in one.log()
    proxy.stop()
    receiver.stop()
