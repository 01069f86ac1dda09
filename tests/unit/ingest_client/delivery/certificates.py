"""Certificates made for one test by the openssl command: two authorities, and servers good and bad."""

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.paths import needs

needs_openssl = needs(shutil.which("openssl") is not None, "the openssl command is absent")

_LONG_AGO = ("20200101000000Z", "20200102000000Z")
_NOW = ("20240101000000Z", "21000101000000Z")


def _openssl(*arguments: str, cwd: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=cwd, check=True, capture_output=True)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as files."""

    cert: Path
    key: Path

    def serving(self, client_ca: Path | None = None) -> ssl.SSLContext:
        """A server context; with ``client_ca`` only clients known to it may connect."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        if client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(client_ca)
        return context


class Authority:
    """A certificate authority in a directory of its own."""

    def __init__(self, directory: Path, name: str) -> None:
        self._dir = directory / name
        self._dir.mkdir()
        self._made = 0
        (self._dir / "index.txt").touch()
        (self._dir / "serial").write_text("01\n")
        (self._dir / "ca.cnf").write_text(
            "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\n"
            "default_md=sha256\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n"
        )
        self.cert = self._dir / "ca.pem"
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", "ca.key", "-out", "ca.pem", "-subj", f"/CN={name}", "-days", "30"),
            *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"),
            cwd=self._dir,
        )

    def issue(self, names: str = "DNS:localhost", *, expired: bool = False) -> Pair:
        """A certificate for these subject names."""
        self._made += 1
        stem = f"leaf{self._made}"
        (self._dir / f"{stem}.ext").write_text(f"subjectAltName={names}\nauthorityKeyIdentifier=keyid\n")
        _openssl(
            *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", f"{stem}.key", "-out", f"{stem}.csr", "-subj", f"/CN={stem}"),
            cwd=self._dir,
        )
        start, end = _LONG_AGO if expired else _NOW
        _openssl(
            *("ca", "-batch", "-config", "ca.cnf", "-keyfile", "ca.key", "-cert", "ca.pem", "-notext"),
            *("-in", f"{stem}.csr", "-out", f"{stem}.pem", "-extfile", f"{stem}.ext"),
            *("-startdate", start, "-enddate", end),
            cwd=self._dir,
        )
        return Pair(self._dir / f"{stem}.pem", self._dir / f"{stem}.key")
