"""pysaml2's Server without the xmlsec1 program, and without the warning it gives when it is imported."""

import logging
import warnings
from collections.abc import Sequence

from saml2 import BINDING_HTTP_REDIRECT
from saml2.config import IdPConfig
from saml2.sigver import RSACrypto

with warnings.catch_warnings():
    # pysaml2 names a cipher mode that `cryptography` is about to move; nothing here uses it.
    warnings.simplefilter("ignore")
    from saml2.server import Server as Server  # noqa: PLC0414  # said twice to export it


def new_server(*, entity_id: str, sign_on_url: str, service_providers: Sequence[bytes]) -> Server:
    """Make a Server that knows these service providers; it parses and builds, and never signs."""
    logging.getLogger("saml2").setLevel(logging.CRITICAL + 1)
    config = IdPConfig()
    config.load(
        {
            "entityid": entity_id,
            # It only has to exist: pysaml2 looks for the program at start, and nothing here runs it.
            "xmlsec_binary": "/dev/null",
            "metadata": {"inline": [text.decode() for text in service_providers]},
            "service": {
                "idp": {
                    "endpoints": {"single_sign_on_service": [(sign_on_url, BINDING_HTTP_REDIRECT)]},
                    "want_authn_requests_signed": True,
                    "policy": {"default": {"lifetime": {"minutes": 5}}},
                }
            },
        }
    )
    server = Server(config=config)
    server.sec.sec_backend = RSACrypto(None)
    return server
