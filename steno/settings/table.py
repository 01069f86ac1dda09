"""The table of settings. The README's list, ``--help`` and the loader are made from it."""

from dataclasses import dataclass
from typing import Final

from ingest_client.payload import MAX_BODY_BYTES
from steno.settings.kinds import File, Kind, Listen, Size, Span, Switch, Text, Texts, Whole, Workers

_LARGEST_BYTES: Final = 1 << 50
_LONGEST_S: Final = 366 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One setting.

    ``path`` is its place in YAML; the flag and the environment variable follow from it.
    ``default`` is text, as an operator would write it. ``also`` names the contract's own
    environment variable, so that its deployments work unchanged.
    """

    path: str
    kind: Kind
    default: str
    help: str
    reason: str
    also: str = ""

    @property
    def flag(self) -> str:
        """``--listen`` for ``extproc.listen``: the command names the section."""
        return "--" + self.path.partition(".")[2].replace(".", "-").replace("_", "-")

    @property
    def variable(self) -> str:
        """``STENO_EXTPROC_LISTEN`` for ``extproc.listen``."""
        return "STENO_" + self.path.replace(".", "_").upper()

    @property
    def section(self) -> str:
        """The command the setting belongs to."""
        return self.path.partition(".")[0]


ROWS: Final = (
    Row(
        path="extproc.listen",
        kind=Listen(),
        default="127.0.0.1:50051",
        help="Where Envoy's ext_proc streams arrive: HOST:PORT or unix:PATH.",
        reason="loopback: a sidecar's Envoy is on the same host; in a cluster say 0.0.0.0:50051",
        also="TAPES_LISTEN_ADDR",
    ),
    Row(
        path="extproc.transport",
        kind=Text(("grpcio", "http2")),
        default="grpcio",
        help="Which server speaks gRPC to Envoy. http2 costs less and needs steno[http2].",
        reason="http2 has not held every proof yet (docs/decisions/0008)",
    ),
    Row(
        path="extproc.rest",
        kind=Span(0, 0.2),
        default="50ms",
        help="How long http2 waits between small reads where Envoy waits for no answer; 0: never.",
        reason="one read then takes in the chunks of many streams; short beside Envoy's ping timeout of 1 s",
    ),
    Row(
        path="extproc.admin_listen",
        kind=Listen(),
        default="127.0.0.1:9090",
        help="Where /metrics, /healthz, /readyz and /state are served.",
        reason="loopback until somebody decides who may look",
        also="TAPES_METRICS_ADDR",
    ),
    Row(
        path="extproc.access_log_listen",
        kind=Listen(may_be_empty=True),
        default="",
        help="Where Envoy's access log (gRPC) arrives: turns that were served but not seen get named.",
        reason="empty: off, as Envoy must be told to send it; deploy/envoy.yaml sends it to 127.0.0.1:50052",
    ),
    Row(
        path="extproc.access_log_grace",
        kind=Span(1, 3600),
        default="30s",
        help="How long a served turn waits for its exchange before it counts as not seen.",
        reason="more than Envoy's deferred close (15 s) and its flush of the log (1 s)",
    ),
    Row(
        path="extproc.ingest_url",
        kind=Texts(),
        default="http://127.0.0.1:8090",
        help="Base URL of the ingest service; several may be given, with commas.",
        reason="where `steno ingest` listens",
        also="TAPES_INGEST_URL",
    ),
    Row(
        path="extproc.ingest_token_file",
        kind=File(),
        default="",
        help="File that holds the bearer token for ingest. Read again when it changes.",
        reason="none: the contract's ingest asks for none",
    ),
    Row(
        path="extproc.ingest_ca_file",
        kind=File(),
        default="",
        help="Certificate authorities (PEM) that may vouch for ingest, instead of the system's.",
        reason="none: the system's",
    ),
    Row(
        path="extproc.ingest_cert_file",
        kind=File(),
        default="",
        help="Our certificate (PEM) for mutual TLS with ingest; goes with the key file.",
        reason="none: no mutual TLS",
    ),
    Row(
        path="extproc.ingest_key_file",
        kind=File(),
        default="",
        help="The key (PEM) of that certificate.",
        reason="none: no mutual TLS",
    ),
    Row(
        path="extproc.data_dir",
        kind=File(must_exist=False),
        default="/var/lib/steno",
        help="Where turns wait for ingest. On a persistent volume they outlive the pod.",
        reason="the usual place for a service's state",
    ),
    Row(
        path="extproc.memory_only",
        kind=Switch(),
        default="false",
        help="Keep nothing on disk. A crash then loses the turns that ingest has not taken.",
        reason="durable before the first hop is what Steno is for",
    ),
    Row(
        path="extproc.workers",
        kind=Workers(),
        default="1",
        help="Worker processes, or auto for one a core. Each is an endpoint of its own for Envoy.",
        reason="one core captures thousands of chunks a second",
    ),
    Row(
        path="extproc.spool_quota",
        kind=Size(0, _LARGEST_BYTES),
        default="8GiB",
        help="Disk that waiting turns of one worker may take; beyond it new ones are shed. 0: no limit.",
        reason="days of an outage for most, and seldom a whole volume",
    ),
    Row(
        path="extproc.spool_max_age",
        kind=Span(0, _LONGEST_S),
        default="7d",
        help="A turn that ingest has not taken for so long is given up. 0: never.",
        reason="what is older is not waited for",
    ),
    Row(
        path="extproc.queue_turns",
        kind=Whole(1, 1_000_000),
        default="10000",
        help="Ended turns that may wait for reduction and disk before new ones are shed.",
        reason="a minute of a busy gateway, for disks that stall; memory has bounds of its own",
        also="TAPES_MAX_INFLIGHT_DISPATCHES",
    ),
    Row(
        path="extproc.queue_bytes",
        kind=Size(1 << 20, _LARGEST_BYTES),
        default="256MiB",
        help="The same in bytes.",
        reason="the contract's byte budget",
        also="TAPES_DISPATCH_BYTE_BUDGET",
    ),
    Row(
        path="extproc.memory_budget",
        kind=Size(8 << 20, _LARGEST_BYTES),
        default="192MiB",
        help="Memory that exchanges of one worker may hold, from headers until the turn is on disk.",
        reason="5,000 open streams of usual size; beyond it answers are truncated, then turns shed",
    ),
    Row(
        path="extproc.open_exchanges",
        kind=Whole(1, 10_000_000),
        default="40000",
        help="Exchanges of one worker that may be open, or wait for disk, before new ones are shed.",
        reason="more streams than one worker can read",
    ),
    Row(
        path="extproc.tenant_share",
        kind=Whole(1, 100),
        default="75",
        help="Percent of both that one tenant may take, of what the other tenants leave.",
        reason="alone nearly all, beside another nearly half, and a newcomer finds room",
    ),
    Row(
        path="extproc.backends_file",
        kind=File(),
        default="",
        help="YAML of `backend: provider` for the gateway's x-ai-eg-selected-backend header.",
        reason="none: the path tells the provider",
        also="TAPES_PROVIDER_MAP_FILE",
    ),
    Row(
        path="extproc.routes_file",
        kind=File(),
        default="",
        help="YAML list of path, dialect, provider (and host, vendor) for paths that Steno does not know.",
        reason="none: the built-in table knows the public providers",
    ),
    Row(
        path="extproc.capture_errors",
        kind=Switch(),
        default="false",
        help="Turns whose answer has an error status are sent too, with the provider's error.",
        reason="the contract leaves them out",
    ),
    Row(
        path="extproc.quarantine_raw",
        kind=Switch(),
        default="false",
        help="Keep what cannot be made a turn as it came, not as text without credentials.",
        reason="what nobody could parse may hold anybody's secrets",
    ),
    Row(
        path="extproc.interrupted_after",
        kind=Span(1, 86_400),
        default="5m",
        help="An open exchange that nobody has written down for so long is finished as interrupted.",
        reason="ten times the longest interval between two snapshots",
    ),
    Row(
        path="extproc.tls_cert_file",
        kind=File(),
        default="",
        help="Certificate (PEM) of the ext_proc listener; goes with the key file.",
        reason="none: Envoy is on the same host",
    ),
    Row(
        path="extproc.tls_key_file",
        kind=File(),
        default="",
        help="The key (PEM) of that certificate.",
        reason="none: Envoy is on the same host",
    ),
    Row(
        path="extproc.tls_client_ca_file",
        kind=File(),
        default="",
        help="Certificate authorities (PEM) that Envoy's own certificate must come from.",
        reason="none: any client on the listener's network",
    ),
    Row(
        path="extproc.drain",
        kind=Span(0, 3600),
        default="20s",
        help="How long a stop waits for open streams and undelivered turns.",
        reason="less than Kubernetes' 30 s",
    ),
    Row(
        path="extproc.handover",
        kind=Span(0, 86_400),
        default="10m",
        help="How long a replaced worker may finish the streams that are open (kill -HUP replaces workers).",
        reason="longer than nearly every stream; it takes no new ones meanwhile, and a stop cuts it short",
    ),
    Row(
        path="extproc.connection_age",
        kind=Span(1, 86_400),
        default="60s",
        help="grpcio only: how long Envoy uses a connection before it is asked to open another.",
        reason="a replaced worker waits so long: gRPC cuts streams that arrive at the moment it stops",
    ),
    Row(
        path="extproc.log_level",
        kind=Text(("debug", "info", "warning", "error")),
        default="info",
        help="The least severe log line written.",
        reason="what the person on call needs",
    ),
    Row(
        path="ingest.listen",
        kind=Text(),
        default="127.0.0.1:8090",
        help="Where turns arrive and are read: HOST:PORT.",
        reason="loopback until credentials are set",
        also="TAPES_INGEST_LISTEN",
    ),
    Row(
        path="ingest.database_url",
        kind=Text(),
        default="sqlite:////var/lib/steno/ingest.db",
        help="Where turns are stored: sqlite:////absolute/path or postgresql://USER@HOST/NAME.",
        reason="one file, no second service",
        also="TAPES_STORAGE_POSTGRES_DSN",
    ),
    Row(
        path="ingest.max_body",
        kind=Size(1024, 1 << 30),
        default=str(MAX_BODY_BYTES),
        help="Largest turn taken; a larger one is refused with 413.",
        reason="the contract's limit, which sidecars count on",
    ),
    Row(
        path="ingest.keys_file",
        kind=File(),
        default="",
        help="JSON of API keys (SHA-256) and client certificates, each with tenants and roles. Read again "
        "when it changes.",
        reason="none: open to everybody, and then on loopback only",
    ),
    Row(
        path="ingest.tls_cert_file",
        kind=File(),
        default="",
        help="Certificate (PEM) of the listener; goes with the key file. Read again when it changes.",
        reason="none: plain HTTP, as the contract's sidecar speaks",
    ),
    Row(
        path="ingest.tls_key_file",
        kind=File(),
        default="",
        help="The key (PEM) of that certificate.",
        reason="none: plain HTTP",
    ),
    Row(
        path="ingest.tls_client_ca_file",
        kind=File(),
        default="",
        help="Certificate authorities (PEM) that a client's own certificate must come from.",
        reason="none: keys tell who speaks",
    ),
    Row(
        path="ingest.tls_client_optional",
        kind=Switch(),
        default="false",
        help="Let clients without a certificate in, too. They then need an API key.",
        reason="a listener with client authorities asks for a certificate; probes often have none",
    ),
    Row(
        path="ingest.listen_anywhere",
        kind=Switch(),
        default="false",
        help="Listen beyond loopback although there are no keys.",
        reason="turns are other people's words: nobody opens them to a network by accident",
    ),
    Row(
        path="ingest.limits_file",
        kind=File(),
        default="",
        help="YAML list of tenant, turns_per_s, burst_turns, bytes_per_s, burst_bytes, stored_bytes: what is "
        "beyond them is answered 429. Read again when it changes.",
        reason="none: no limits",
    ),
    Row(
        path="ingest.retention_file",
        kind=File(),
        default="",
        help="YAML list of tenant, accepted_days, rejected_days: how long turns are kept. "
        "Read at the start only.",
        reason="none: accepted turns are kept for good, rejected ones for 30 days",
    ),
    Row(
        path="ingest.queue_jobs",
        kind=Whole(1, 1_000_000),
        default="4096",
        help="Turns that may wait for the store before writers are told to come again.",
        reason="about a second of writes",
    ),
    Row(
        path="ingest.queue_bytes",
        kind=Size(1 << 20, 1 << 40),
        default="256MiB",
        help="The same in bytes.",
        reason="the contract's byte budget",
    ),
    Row(
        path="ingest.project",
        kind=Text(),
        default="",
        help="Tag stored with every turn that brings none of its own.",
        reason="none",
        also="TAPES_PROXY_PROJECT",
    ),
    Row(
        path="ingest.drain",
        kind=Span(0, 600),
        default="20s",
        help="How long a stop waits for requests in flight, in whole seconds, at least one. What waits for "
        "the store is then made durable, and the batch in derivation finished.",
        reason="less than Kubernetes' 30 s",
    ),
    Row(
        path="ingest.log_level",
        kind=Text(("debug", "info", "warning", "error")),
        default="info",
        help="The least severe log line written.",
        reason="what the person on call needs",
    ),
)
