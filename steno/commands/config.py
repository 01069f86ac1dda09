"""``steno config``: configuration for what is around Steno, made from Steno's own settings.

``envoy`` prints Envoy's side of the sidecar: as many endpoints as there are workers, where they listen.
"""

import argparse
from typing import cast

from extproc.settings import SidecarSettings
from extproc.transport.address import AddressError, UnixAddress, parse_address, worker_address
from steno.commands.extproc import sidecar_settings
from steno.demo.envoy import shipped_configuration
from steno.envoy_config import EnvoyTls, Part, Wanted, envoy_config, reached_at
from steno.errors import CommandError
from steno.settings.flags import add_flags, read_flags


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    kinds = parser.add_subparsers(metavar="KIND", required=True)
    text = "the clusters and filters that match `steno extproc` with the same settings"
    envoy = kinds.add_parser("envoy", help=text, description=f"Print {text}.")
    envoy.add_argument(
        "--part",
        choices=[part.value for part in Part],
        default=Part.CLUSTERS.value,
        help="clusters (the default), http filters, access log, or a whole file that Envoy runs",
    )
    envoy.add_argument("--host", default="", help="where Envoy finds the sidecar (default: where it listens)")
    envoy.add_argument("--envoy-ca-file", default="", help="who vouches for the sidecar's certificate (PEM)")
    envoy.add_argument("--envoy-cert-file", default="", help="Envoy's own certificate, for mutual TLS (PEM)")
    envoy.add_argument("--envoy-key-file", default="", help="the key of that certificate (PEM)")
    envoy.add_argument(
        "--server-name", default="", help="whom the sidecar's certificate is for (default: host)"
    )
    add_flags(envoy, "extproc")
    envoy.set_defaults(run=_envoy)


def _envoy(parsed: argparse.Namespace) -> int:
    settings = sidecar_settings(read_flags(parsed, "extproc"))
    part = Part(cast("str", parsed.part))
    if part is Part.ACCESS_LOG and not settings.access_log_listen:
        raise CommandError("the sidecar does not read Envoy's access log: set --access-log-listen")
    try:
        wanted = _wanted(settings, parsed)
    except AddressError as error:
        raise CommandError(str(error)) from error
    print(envoy_config(shipped_configuration().read_text(encoding="utf-8"), wanted, part), end="")
    return 0


def _wanted(settings: SidecarSettings, parsed: argparse.Namespace) -> Wanted:
    host = cast("str", parsed.host)
    listen = reached_at(parse_address(settings.listen), host)
    log = settings.access_log_listen
    return Wanted(
        workers=[worker_address(listen, index) for index in range(settings.workers)],
        access_log=reached_at(parse_address(log), host) if log else None,
        tls=_tls(settings, parsed, "" if isinstance(listen, UnixAddress) else listen.host),
    )


def _tls(settings: SidecarSettings, parsed: argparse.Namespace, host: str) -> EnvoyTls | None:
    """TLS where the sidecar's listener has it. Raises CommandError for the files that only Envoy has."""
    if settings.tls is None:
        return None
    authority, certificate, key = (
        cast("str", getattr(parsed, name)) for name in ("envoy_ca_file", "envoy_cert_file", "envoy_key_file")
    )
    if not authority:
        raise CommandError("the sidecar's listener has TLS: say who vouches for it with --envoy-ca-file")
    if bool(certificate) != bool(key) or (settings.tls.client_ca is not None and not certificate):
        raise CommandError(
            "for mutual TLS Envoy needs a certificate and its key: --envoy-cert-file and --envoy-key-file"
        )
    name = cast("str", parsed.server_name) or host
    return EnvoyTls(ca=authority, name=name, certificate=certificate, key=key)
