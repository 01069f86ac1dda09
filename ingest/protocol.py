"""uvicorn's protocol, and what it leaves out: the certificate that a client showed.

TLS has verified it before the connection is made. Its names go into the state of every
request of the connection; what they are good for is looked up for each, so that a key
taken out of the keys file ends on open connections, too.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ingest.certificates import names_of
from ingest.writing import CERTIFICATE


class ClientProtocol(HttpToolsProtocol):
    """HTTP/1.1 from one client."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note who it is."""
        super().connection_made(transport)
        names = names_of(transport.get_extra_info("peercert"))
        self.app_state = {**self.app_state, CERTIFICATE: names}
