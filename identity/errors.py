"""What can go wrong with a person's identity, each with one plain sentence that leaks nothing.

PassportError
├── RefusedError
│   └── AssertionRefusedError    a SAML response was not accepted; `reason` is for the audit log
├── NotFoundError
│   └── UnknownProviderError     no identity provider of that name is configured
├── UnavailableError
│   └── StoreUnavailableError    the identity store does not answer, or not as it should
└── MetadataError                a setting: the identity provider's metadata cannot be used
"""

from access.errors import NotFoundError, PassportError, RefusedError, UnavailableError

_AGAIN = "Please start again with /passport link."
_TELL = "If it happens again, tell your Passport admin this word: "

_SENTENCES = {
    "status": "Your identity provider did not sign you in. Please try again, or ask your identity team.",
    "in_response_to": f"This sign-in does not belong to the link you opened. {_AGAIN}",
    "expired": f"This sign-in took too long and has run out. {_AGAIN}",
    "not_yet_valid": f"This sign-in is dated in the future: a clock is wrong. {_TELL}not_yet_valid.",
    "transient_subject": "Your identity provider sends a new name for you every time, so Passport cannot "
    "recognise you. Ask your identity team to send a persistent name.",
    "no_email": "Your identity provider did not say your email address. Ask your identity team to send it.",
    "bad_email": "Your identity provider sent an email address that Passport cannot use. Ask your identity "
    "team to send exactly one valid address.",
    "groups_left_out": "You are in so many groups that your identity provider left them all out. Ask your "
    "identity team to send only the groups that Passport needs.",
}


class AssertionRefusedError(RefusedError):
    """A SAML response was refused; `reason` is a short code, `sentence` is for the person."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        unknown = f"Passport could not verify your sign-in. {_AGAIN} {_TELL}{reason}."
        super().__init__(_SENTENCES.get(reason, unknown))


class UnknownProviderError(NotFoundError):
    """No identity provider of this name is configured."""


class StoreUnavailableError(UnavailableError):
    """The identity store cannot be asked now; nothing is known about the person."""


class MetadataError(PassportError):
    """The metadata of an identity provider cannot be used."""
