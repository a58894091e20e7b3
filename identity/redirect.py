"""A signed AuthnRequest as a URL (SAML bindings, 3.4: HTTP-Redirect with DEFLATE)."""

import base64
import zlib
from datetime import datetime
from urllib.parse import quote_plus, urlencode

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from saml2 import saml, samlp

from identity import algorithms
from identity.metadata import HTTP_POST, PERSISTENT

MAX_RELAY_STATE_BYTES = 80  # SAML bindings, 3.4.3


def authn_request_xml(
    *, request_id: str, issued_at: datetime, entity_id: str, acs_url: str, destination: str, force: bool
) -> str:
    """Write the request for a sign-in that is answered at `acs_url`."""
    request = samlp.AuthnRequest(
        id=request_id,
        version="2.0",
        issue_instant=issued_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        destination=destination,
        issuer=saml.Issuer(text=entity_id),
        assertion_consumer_service_url=acs_url,
        protocol_binding=HTTP_POST,
        force_authn="true" if force else None,
        name_id_policy=samlp.NameIDPolicy(format=PERSISTENT, allow_create="true"),
    )
    return str(request)


def signed_url(*, destination: str, request_xml: str, relay_state: str, key: rsa.RSAPrivateKey) -> str:
    """Put a request into a URL, signed by us.

    pysaml2's own signer keeps its key in a module-level object, so two threads could sign with each
    other's key.
    """
    squeezed = zlib.compress(request_xml.encode(), level=9)[2:-4]  # raw DEFLATE: no zlib header, no checksum
    query = urlencode(
        {
            "SAMLRequest": base64.b64encode(squeezed).decode(),
            "RelayState": relay_state,
            "SigAlg": algorithms.RSA_SHA256,
        }
    )
    signature = base64.b64encode(key.sign(query.encode(), padding.PKCS1v15(), SHA256())).decode()
    glue = "&" if "?" in destination else "?"
    return f"{destination}{glue}{query}&Signature={quote_plus(signature)}"
