"""A SAML identity provider and SCIM directory for tests and the demo; not for anything real."""

from sandbox.idp.browser import Browser, BrowserError
from sandbox.idp.people import Person
from sandbox.idp.provider import IdentityProviderDouble
from sandbox.idp.responses import NAMING_STYLES
from sandbox.idp.sign_on import RequestRefusedError
from sandbox.idp.tamper import Tamper

__all__ = [
    "NAMING_STYLES",
    "Browser",
    "BrowserError",
    "IdentityProviderDouble",
    "Person",
    "RequestRefusedError",
    "Tamper",
]
