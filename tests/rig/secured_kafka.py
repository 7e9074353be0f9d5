"""Two more listeners of the broker: TLS with passwords, and TLS with client certificates."""

from __future__ import annotations

from pathlib import Path

from tests.rig.authority import Authority
from tests.rig.waiting import free_port

USERNAME, PASSWORD = "dispatcherd", "hunter2-of-kafka"
_LOGIN = "org.apache.kafka.common.security"


class Secured:
    """See `tests.rig.kafka.Security`."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self._sasl, self._mutual = free_port(), free_port()
        self.sasl = f"127.0.0.1:{self._sasl}"
        """SASL_SSL: SCRAM-SHA-256 and PLAIN."""
        self.mutual = f"127.0.0.1:{self._mutual}"
        """SSL, with a certificate of that authority."""
        self.users = ["--add-scram", f"SCRAM-SHA-256=[name={USERNAME},password={PASSWORD}]"]
        certificate, key = authority.issue(["127.0.0.1"])
        self._keystore = folder / "broker.pem"
        self._keystore.write_text(key.read_text() + certificate.read_text())
        self._truststore = authority.file()

    def add_to(self, properties: dict[str, str]) -> None:
        """See `Security`."""
        listeners = f",SASL://{self.sasl},MUTUAL://{self.mutual}"
        properties["listeners"] += listeners
        properties["advertised.listeners"] += listeners
        properties["listener.security.protocol.map"] += ",SASL:SASL_SSL,MUTUAL:SSL"
        plain = f'{_LOGIN}.plain.PlainLoginModule required user_{USERNAME}="{PASSWORD}";'
        properties |= {
            "inter.broker.listener.name": "PLAINTEXT",
            "sasl.enabled.mechanisms": "SCRAM-SHA-256,PLAIN",
            "listener.name.sasl.plain.sasl.jaas.config": plain,
            "listener.name.sasl.scram-sha-256.sasl.jaas.config": (
                f"{_LOGIN}.scram.ScramLoginModule required;"
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._keystore),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self._truststore),
            "listener.name.mutual.ssl.client.auth": "required",
        }
