"""The names in a client's certificate, as the keys file writes them.

``URI:spiffe://cluster/ns/a/sa/envoy`` and ``DNS:envoy.example`` are subject alternative
names, ``CN:envoy`` is the subject's common name. The kind is part of the name: what one
field says can never pass for another. Names match whole; DNS names without case.
"""

from collections.abc import Iterable, Mapping
from typing import Final, cast

_KINDS: Final = ("URI", "DNS", "CN")


class CertificateNameError(ValueError):
    """That is no name of a certificate."""


def normal(name: str) -> str:
    """``name`` as it is compared. Raises :class:`CertificateNameError` unless its kind is known."""
    kind, _, value = name.partition(":")
    if kind not in _KINDS or not value:
        raise CertificateNameError(f'"{name}" must be {", ".join(f"{one}:…" for one in _KINDS)}')
    return f"{kind}:{value.lower()}" if kind == "DNS" else name


def names_of(certificate: Mapping[str, object] | None) -> frozenset[str]:
    """The names of a verified certificate, as :meth:`ssl.SSLSocket.getpeercert` tells them."""
    if not certificate:
        return frozenset()
    subject = cast("Iterable[Iterable[tuple[str, str]]]", certificate.get("subject", ()))
    found = [("CN", value) for part in subject for kind, value in part if kind == "commonName"]
    found += cast("Iterable[tuple[str, str]]", certificate.get("subjectAltName", ()))
    return frozenset(normal(f"{kind}:{value}") for kind, value in found if kind in _KINDS and value)
