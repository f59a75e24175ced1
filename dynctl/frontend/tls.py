"""The frontend's certificate and key."""

from __future__ import annotations

import ssl
from pathlib import Path

from dynctl.errors import UsageError


class Tls:
    """Certificate chain and key in PEM files. `reload` reads them anew, for connections to come."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self.context = self._read()

    def reload(self) -> None:
        """Take the files as they are now. Where they can't be used: UsageError, and the old ones stay."""
        self._read()  # a context that half took them would be of no use
        self.context.load_cert_chain(self._certificate, self._key)

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            # a password prompt would wait for ever where nobody sits
            context.load_cert_chain(self._certificate, self._key, password=b"")
        except (OSError, ValueError) as error:
            raise UsageError(
                "can't use the certificate and its key",
                where=f"{self._certificate}, {self._key}",
                why=str(error),
                fix="give a PEM certificate (with its chain) and the unencrypted PEM key that belongs to it",
            ) from None
        return context


def read_tls(certificate: Path | None, key: Path | None) -> Tls | None:
    """None where neither is given. Raises UsageError for one without the other, or files that can't be used."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UsageError("a certificate and its key belong together", fix="give both --tls-cert and --tls-key")
    return Tls(certificate, key)
