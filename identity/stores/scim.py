"""A SCIM 2.0 directory (RFC 7643, RFC 7644) as the identity store."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeGuard

import requests
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError

from identity.errors import StoreUnavailableError
from identity.urls import is_safe_url

Json = dict[str, object]

_PAGE_SIZE = 50
_MAX_PAGES = 20
_MAX_BYTES = 5_000_000
_SUBJECT_ATTRIBUTES = frozenset({"externalId", "id"})
_EMAIL_ATTRIBUTES = frozenset({"userName", "emails.value"})
_ASKED_FOR = "id,userName,externalId,emails,active,groups"
_MEDIA_TYPE = "application/scim+json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ScimDirectory:
    """Where a SCIM service is, and how people are found in it; the token is never shown.

    `lookup_by` is tried in order: externalId and id hold the SAML subject, userName and emails.value the
    email. An email may pass to somebody else: who is found by it and has another externalId is not the person.
    """

    base_url: str
    token: str = field(repr=False)
    lookup_by: tuple[str, ...] = ("externalId", "userName", "emails.value")
    connect_timeout: float = 3.05
    read_timeout: float = 10.0


class ScimStore:
    """Looks a person up by one attribute after the other; holds no state, so that threads share it."""

    refreshes = True

    def __init__(self, directory: ScimDirectory) -> None:
        self._directory = directory
        self._url = f"{directory.base_url.rstrip('/')}/Users"
        if not is_safe_url(self._url):
            raise ValueError("the SCIM base URL must begin with https://")
        if not directory.token.isascii() or not directory.token.isprintable() or not directory.token:
            raise ValueError("the SCIM token must be printable ASCII")
        unknown = set(directory.lookup_by) - _SUBJECT_ATTRIBUTES - _EMAIL_ATTRIBUTES
        if unknown or not directory.lookup_by:
            raise ValueError(f"people cannot be looked up by {', '.join(sorted(unknown)) or 'nothing'}")

    def groups_of(self, subject: str, email: str) -> frozenset[str] | None:
        """Return the person's groups now, or None if the person is gone or deactivated.

        Raises StoreUnavailableError, also when the answer is ambiguous: nothing is guessed.
        """
        for attribute in self._directory.lookup_by:
            value = subject if attribute in _SUBJECT_ATTRIBUTES else email
            # Checked again: some services pass over filters that they do not know.
            users = [user for user in self._users(attribute, value) if _has(user, attribute, value)]
            if len(users) > 1:
                raise StoreUnavailableError("The identity store has more than one person of that name.")
            if users:
                self._must_be(users[0], subject)
                return _groups(users[0]) if _is_active(users[0]) else None
        return None

    def _must_be(self, user: Json, subject: str) -> None:
        """Refuse whoever was found by the email and is another: an email passes on when somebody leaves."""
        named = user.get("externalId")
        if "externalId" in self._directory.lookup_by and named and named != subject:
            raise StoreUnavailableError(
                "Whoever has this email in the identity store is somebody else by externalId. If that is no SAML "
                "NameID there, an admin leaves externalId out of scim_lookup_by."
            )

    def _users(self, attribute: str, value: str) -> Iterator[Json]:
        if not value:
            return
        start = 1
        for _ in range(_MAX_PAGES):
            page = self._page(f"{attribute} eq {quoted(value)}", start)
            found, total = page.get("Resources", []), page.get("totalResults")
            if not _are_objects(found) or not isinstance(total, int):
                raise _not_scim()
            yield from found
            start += len(found)
            if start > total or not found:
                return
        raise StoreUnavailableError("The identity store's answer has no end.")

    def _page(self, condition: str, start: int) -> Json:
        asked = {
            "filter": condition,
            "attributes": _ASKED_FOR,
            "startIndex": str(start),
            "count": str(_PAGE_SIZE),
        }
        status, body = self._answer(asked)
        if status != requests.codes.ok:
            raise StoreUnavailableError(f"The identity store answered with status {status}.")
        if len(body) > _MAX_BYTES:
            raise StoreUnavailableError("The identity store's answer is too large.")
        return _parsed(body)

    def _answer(self, asked: dict[str, str]) -> tuple[int, bytes]:
        directory = self._directory
        try:
            # No session: it is not made for threads; and no redirects: the token goes nowhere else.
            with requests.get(
                self._url,
                params=asked,
                headers={"Accept": _MEDIA_TYPE},
                auth=_Bearer(directory.token),
                timeout=(directory.connect_timeout, directory.read_timeout),
                allow_redirects=False,
                stream=True,
            ) as answer:
                return answer.status_code, answer.raw.read(_MAX_BYTES + 1, decode_content=True)
        except (requests.RequestException, HTTPError, OSError, ValueError) as failed:
            problem = type(failed).__name__
        # Raised outside the except block: what requests says may quote the token or the person.
        raise StoreUnavailableError(f"The identity store does not answer ({problem}).")


class _Bearer(AuthBase):
    """As an auth and not a header, so that no netrc file on the machine takes its place."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def quoted(value: str) -> str:
    """Quote a value for a SCIM filter: a JSON string (RFC 7644, 3.4.2.2), so nothing in it is syntax."""
    return json.dumps(value)


def _parsed(body: bytes) -> Json:
    try:
        page = json.loads(body)
    except (ValueError, RecursionError):
        page = None
    if not _is_object(page):
        raise _not_scim()
    return page


def _is_active(user: Json) -> bool:
    active = user.get("active")
    if not isinstance(active, bool):
        raise StoreUnavailableError("The identity store does not say who is active.")
    return active


def _has(user: Json, attribute: str, value: str) -> bool:
    if attribute in _SUBJECT_ATTRIBUTES:
        return user.get(attribute) == value
    names = [user.get("userName")] if attribute == "userName" else _own_emails(user)
    return value.lower() in [str(name).lower() for name in names]


def _own_emails(user: Json) -> list[object]:
    """The primary one, or the only one: others may be a leaver's, whose mail this person gets now."""
    emails = user.get("emails", [])
    if not _are_objects(emails):
        return []
    primary = [email.get("value") for email in emails if email.get("primary") is True]
    return primary or ([emails[0].get("value")] if len(emails) == 1 else [])


def _groups(user: Json) -> frozenset[str]:
    groups = user.get("groups", [])
    if not _are_objects(groups):
        raise _not_scim()
    names = [group.get("display") for group in groups]
    if not all(isinstance(name, str) and name for name in names):
        raise StoreUnavailableError("The identity store does not say the names of groups.")
    return frozenset(str(name) for name in names)


def _is_object(value: object) -> TypeGuard[Json]:
    return isinstance(value, dict)


def _are_objects(value: object) -> TypeGuard[list[Json]]:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _not_scim() -> StoreUnavailableError:
    return StoreUnavailableError("The identity store's answer is not SCIM.")
