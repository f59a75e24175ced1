"""How a run's own clients trust its frontend: by the certificate that it was given, and by nothing else."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any

_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME: that a certificate has run out is for the users' clients to say."""


class _Pinned(ssl.SSLContext):
    """Takes the file as it is at each connection, since certificates are renewed while a run goes on."""

    file = ""

    def _renew(self) -> None:
        with contextlib.suppress(OSError):
            self.load_verify_locations(self.file)

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        self._renew()
        return super().wrap_socket(*args, **options)

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        self._renew()
        return super().wrap_bio(*args, **options)


def pinned(file: str | None) -> ssl.SSLContext | None:
    """Trusts whoever has the key of the PEM certificate in `file`, whatever name it bears; None without a file.

    A file that can't be read trusts nobody until it can.
    """
    if file is None:
        return None
    context = _Pinned(ssl.PROTOCOL_TLS_CLIENT)
    context.file = file
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_NO_CHECK_TIME)
    return context


def trust(file: str | None) -> ssl.SSLContext | bool:
    """The same as httpx has it: without a file the system's list."""
    return pinned(file) or True
