"""What the settings say about an identity provider, and the attribute names of the common ones."""

from dataclasses import dataclass

_WS = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims"
_ENTRA = "http://schemas.microsoft.com"

# The first name that the assertion holds wins. In this order: what Okta, Google and Keycloak are usually
# set up to send, LDAP names by urn:oid (Shibboleth, Keycloak's built-in mappers), Entra's and ADFS's URLs.
EMAIL_ATTRIBUTES = (
    "email",
    "mail",
    "emailAddress",
    "user.email",
    "urn:oid:0.9.2342.19200300.100.1.3",
    "urn:oid:1.2.840.113549.1.9.1",
    f"{_WS}/emailaddress",
)
NAME_ATTRIBUTES = (
    "displayName",
    "urn:oid:2.16.840.1.113730.3.1.241",
    f"{_ENTRA}/identity/claims/displayname",
    "cn",
    "urn:oid:2.5.4.3",
    "name",
    f"{_WS}/name",
)
GROUP_ATTRIBUTES = (
    "groups",
    "group",
    "memberOf",
    "member",
    "urn:oid:1.3.6.1.4.1.5923.1.5.1.1",
    f"{_ENTRA}/ws/2008/06/identity/claims/groups",
    "http://schemas.xmlsoap.org/claims/Group",
)

GIVEN_NAME_ATTRIBUTES = ("givenName", "firstName", "first_name", "urn:oid:2.5.4.42", f"{_WS}/givenname")
FAMILY_NAME_ATTRIBUTES = ("sn", "surname", "lastName", "last_name", "urn:oid:2.5.4.4", f"{_WS}/surname")

# Entra sends this link instead of the groups of a person who is in more than 150.
GROUPS_LEFT_OUT_ATTRIBUTES = (f"{_ENTRA}/claims/groups.link",)


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentityProvider:
    """An identity provider of the settings: our name for it, its metadata, and what it calls things."""

    name: str
    metadata: bytes
    email_attributes: tuple[str, ...] = EMAIL_ATTRIBUTES
    name_attributes: tuple[str, ...] = NAME_ATTRIBUTES
    group_attributes: tuple[str, ...] = GROUP_ATTRIBUTES
    subject_attribute: str | None = None
