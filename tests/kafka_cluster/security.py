"""Certificates, SCRAM users and access lists for a secured listener, made on the spot."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

MECHANISM = "SCRAM-SHA-512"


@dataclass(frozen=True)
class Security:
    """A second listener with TLS and SASL/SCRAM, and access lists for its users.

    `users` maps names to passwords. A client of the plain listener is a super user, so that a test can create topics
    and grant rights; a client of the secured listener may do only what was granted.
    """

    users: Mapping[str, str]
    authority: trustme.CA = field(default_factory=trustme.CA)

    def write(self, folder: Path) -> None:
        """Write `ca.pem` (for clients) and `broker.pem` (key and chain, as Kafka's PEM key stores want them)."""
        certificate = self.authority.issue_cert("localhost", "127.0.0.1")
        key = load_pem_private_key(certificate.private_key_pem.bytes(), password=None)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # the only form Kafka reads
        broker = folder / "broker.pem"
        broker.touch(mode=0o600)
        broker.write_bytes(pem + b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        self.authority.cert_pem.write_to_path(str(folder / "ca.pem"))

    def properties(self, folder: Path) -> dict[str, str]:
        """Make the broker properties of a listener named SECURED, whose files `write` has put into `folder`."""
        prefix = "listener.name.secured."
        login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        return {
            f"{prefix}ssl.keystore.type": "PEM",
            f"{prefix}ssl.keystore.location": str(folder / "broker.pem"),
            f"{prefix}sasl.enabled.mechanisms": MECHANISM,
            f"{prefix}{MECHANISM.lower()}.sasl.jaas.config": login,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "allow.everyone.if.no.acl.found": "false",
        }

    def format_arguments(self) -> list[str]:
        """Make the arguments of `StorageTool format` that add the users, who are known from the first start on."""
        return [f"--add-scram={MECHANISM}=[name={name},password={secret}]" for name, secret in self.users.items()]
