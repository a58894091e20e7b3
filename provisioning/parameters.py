"""Every value that a server is ever given, and the one pattern that each of them has to match."""

from dataclasses import dataclass

from provisioning import sudo_commands

_ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI[0-9A-Za-z+/]{43}"
_P256 = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBB[0-9A-Za-z+/]{86}="


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One input of a script; ``pattern`` is plain enough to mean the same to Python, AWS and grep -E."""

    name: str
    variable: str  # what the script calls it
    pattern: str
    says: str
    default: str | None = None


REQUEST_ID = Parameter(
    name="RequestId", variable="REQUEST_ID", pattern="^AR-[0-9A-Z]{4,8}$", says="The request, like AR-7F3K"
)
# A retry is a new grant, and the tombstone of the first attempt must not refuse it. It is a number, and not the
# grant's id, because one command with the same parameters goes to many servers.
ATTEMPT = Parameter(
    name="Attempt",
    variable="ATTEMPT",
    pattern="^[1-9][0-9]{0,3}$",
    says="How often this request has asked for this server, this time included",
    default="1",
)
USER_NAME = Parameter(
    name="UserName", variable="ASKED_NAME", pattern="^pp-[0-9a-z]{4,8}$", says="The user to make or remove"
)
CREATE_ONLY = (
    Parameter(
        name="NotAfter",
        variable="NOT_AFTER",
        pattern="^[1-9][0-9]{9,10}$",
        says="When access ends, in seconds since 1970",
    ),
    Parameter(
        name="Sudo",
        variable="SUDO",
        pattern=sudo_commands.PATTERN,
        says="What sudo allows: none, all, or commands with commas between them, each with just these arguments",
        default="none",
    ),
    Parameter(
        name="CaPublicKey",
        variable="CA_PUBLIC_KEY",
        pattern=f"^({_ED25519}|{_P256})(,({_ED25519}|{_P256}))?$",
        says="The certificate authority's public key; two, with a comma, while it changes",
    ),
    Parameter(
        name="CaGeneration",
        variable="CA_GENERATION",
        pattern="^[1-9][0-9]{0,8}$",
        says="How often these keys have changed; a server never goes back to earlier ones",
        default="1",
    ),
    Parameter(
        name="Forwarding",
        variable="FORWARDING",
        pattern="^(no|yes)$",
        says="Whether SSH may forward ports and agents",
        default="no",
    ),
    Parameter(
        name="Metadata",
        variable="METADATA",
        pattern="^(closed|open)$",
        says="Whether the user may reach the instance metadata service, and so the instance's credentials",
        default="closed",
    ),
    Parameter(
        name="KeepHome",
        variable="KEEP_HOME",
        pattern="^(0|[1-9][0-9]?)$",
        says="For how many days after the end the home is kept, readable for root only",
        default="0",
    ),
    Parameter(
        name="UidFirst",
        variable="UID_FIRST",
        pattern="^[1-9][0-9]{4,8}$",
        says="The first user id that Passport may give",
        default="200000",
    ),
    Parameter(
        name="UidLast",
        variable="UID_LAST",
        pattern="^[1-9][0-9]{4,8}$",
        says="The last one; it owns what removed users left behind",
        default="524287",
    ),
)
# 2,048 bits: a command names up to 50 servers with a key for each, and all of that is one parameter.
_SERVER_KEY = "m?i-[0-9a-f]{8,17}:[0-9A-Za-z+/]{342}=="
WINDOWS_CREATE_ONLY = (
    CREATE_ONLY[0],
    Parameter(
        name="Administrator",
        variable="Administrator",
        pattern="^(no|yes)$",
        says="Whether the user is one of the server's administrators",
        default="no",
    ),
    Parameter(
        name="PublicKeys",
        variable="PublicKeys",
        pattern=f"^{_SERVER_KEY}(,{_SERVER_KEY}){{0,49}}$",
        says="The RSA modulus that each server encrypts its password to, as instance:base64 with commas",
    ),
    Parameter(
        name="PublicExponent",
        variable="PublicExponent",
        pattern="^AQAB$",
        says="The RSA exponent of all of them, 65537",
        default="AQAB",
    ),
)
