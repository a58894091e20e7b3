"""pysaml2's AuthnResponse with the checks that it leaves out or leaves optional."""

import logging
from collections.abc import Iterable

from saml2.response import AuthnResponse as LaxResponse
from saml2.sigver import SecurityContext

from identity import conditions
from identity.conditions import Expected
from identity.errors import AssertionRefusedError
from identity.person import Attribute, NameId


class StrictResponse(LaxResponse):  # type: ignore[misc]  # pysaml2 has no types
    """One answer to one AuthnRequest: both signatures required, and every condition there and met."""

    def __init__(self, security: SecurityContext, expected: Expected) -> None:
        self._expected = expected
        self.remember_until = expected.now
        super().__init__(
            security,
            attribute_converters=[],
            entity_id=expected.entity_id,
            return_addrs=[expected.acs_url],
            outstanding_queries={expected.request_id: expected.acs_url},
            timeslack=int(conditions.CLOCK_SKEW.total_seconds()),
            allow_unsolicited=False,
            want_assertions_signed=True,
            want_response_signed=True,
            # Without any conversation pysaml2 accepts every recipient.
            conv_info={"binding": "post"},
        )

    def check(self, text: str) -> None:
        """Validate a response; raises AssertionRefusedError or whatever pysaml2 raises."""
        self.loads(text, decode=False, origxml=text)
        self._check_envelope()
        if self.verify() is None or self.assertion is None:
            # pysaml2 passes over an assertion that does not decrypt, in silence.
            raise AssertionRefusedError("encryption" if self.response.encrypted_assertion else "invalid")

    def condition_ok(self, lax: bool = False) -> bool:  # noqa: FBT001  # pysaml2's signature
        """Check the assertion; pysaml2 comes here once its signature is verified."""
        expected = self._expected
        conditions.check_issuer(self.assertion.issuer, expected)
        end = conditions.check_conditions(self.assertion.conditions, expected)
        subject = self.assertion.subject
        if subject is None or subject.encrypted_id is not None:
            raise AssertionRefusedError("subject")
        confirmed = conditions.check_confirmation(subject.subject_confirmation, expected)
        self.remember_until = max(confirmed, end or confirmed) + conditions.CLOCK_SKEW
        return bool(super().condition_ok(lax))

    def get_identity(self) -> dict[str, list[str]]:
        """Leave the attributes alone: pysaml2's converters drop those that they do not know, like groups."""
        return {}

    @property
    def assertion_id(self) -> str:
        """The id to remember until `remember_until`."""
        return str(self.assertion.id)

    @property
    def subject_name(self) -> NameId | None:
        """The verified NameID."""
        name: NameId | None = self.name_id
        return name

    @property
    def attributes(self) -> Iterable[Attribute]:
        """The verified attributes."""
        for statement in self.assertion.attribute_statement:
            yield from statement.attribute

    def _check_envelope(self) -> None:
        """Check what the response's own signature covers."""
        conditions.check_issuer(self.response.issuer, self._expected)
        if self.response.destination != self._expected.acs_url:
            raise AssertionRefusedError("destination")


def mute_pysaml2() -> None:
    """Keep pysaml2 from logging: it writes whole assertions, as debug lines and with its errors.

    Its loggers are switched off one by one, so that turning on debugging everywhere does not bring them back.
    """
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] in {"saml2", "xmlschema"}:
            logging.getLogger(name).disabled = True
    # For those that are made later.
    for name in ("saml2", "xmlschema"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
