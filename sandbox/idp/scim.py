"""A SCIM 2.0 endpoint (RFC 7644) over the directory, strict about filters, paging and the token."""

import hmac
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from sandbox.idp.people import Directory, Person

MEDIA_TYPE = "application/scim+json"

_STRING = r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9A-Fa-f]{4})*"'
_FILTER = re.compile(rf"(externalId|userName|id|emails\.value|emails) (eq) ({_STRING})", re.IGNORECASE)
_PARAMETERS = {"filter", "attributes", "startIndex", "count"}
_ALWAYS = {"schemas", "id"}

Json = dict[str, object]


class _BadRequestError(Exception):
    def __init__(self, scim_type: str, detail: str) -> None:
        self.scim_type = scim_type
        super().__init__(detail)


@dataclass(kw_only=True, slots=True)
class ScimService:
    """Answers GET /Users; `broken` replaces the next answers by (status, body) until it is None again."""

    directory: Directory
    token: str = field(repr=False)
    page_size: int = 2
    broken: tuple[int, bytes] | None = None
    ignores_filters: bool = False
    queries: list[dict[str, str]] = field(default_factory=list)

    def answer(self, query: str, authorization: str | None) -> tuple[int, bytes]:
        """Answer a query string with a status and a body."""
        if not hmac.compare_digest((authorization or "").encode(), f"Bearer {self.token}".encode()):
            return _error(401, "", "a bearer token is needed")
        if self.broken is not None:
            return self.broken
        try:
            return 200, json.dumps(self._list(query)).encode()
        except _BadRequestError as bad:
            return _error(400, bad.scim_type, str(bad))

    def _list(self, query: str) -> Json:
        asked = _parameters(query)
        self.queries.append(asked)
        matches = _condition(asked["filter"]) if "filter" in asked and not self.ignores_filters else _anybody
        found = [person for person in self.directory.everybody() if matches(person)]
        start = max(1, _number(asked, "startIndex", 1))
        count = min(self.page_size, max(0, _number(asked, "count", self.page_size)))
        wanted = {name.strip() for name in asked["attributes"].split(",")} if "attributes" in asked else None
        page = [_resource(person, wanted) for person in found[start - 1 : start - 1 + count]]
        return {
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
            "totalResults": len(found),
            "startIndex": start,
            "itemsPerPage": len(page),
            "Resources": page,
        }


def _parameters(query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    asked = dict(pairs)
    if len(asked) != len(pairs) or not set(asked) <= _PARAMETERS:
        raise _BadRequestError("invalidSyntax", "an unknown or repeated parameter")
    return asked


def _number(asked: dict[str, str], name: str, otherwise: int) -> int:
    text = asked.get(name, str(otherwise))
    if not re.fullmatch(r"-?\d{1,9}", text):
        raise _BadRequestError("invalidValue", f"{name} is a number")
    return int(text)


def _condition(text: str) -> Callable[[Person], bool]:
    match = _FILTER.fullmatch(text)
    if match is None:
        raise _BadRequestError("invalidFilter", 'only attribute eq "value" is known here')
    attribute, value = match[1].lower(), str(json.loads(match[3]))
    if attribute == "externalid":
        return lambda person: person.subject == value  # caseExact
    if attribute == "id":
        return lambda person: _id(person) == value
    return lambda person: person.email == value.lower()


def _anybody(_: Person) -> bool:
    return True


def _id(person: Person) -> str:
    return f"scim-{person.subject}"


def _resource(person: Person, wanted: set[str] | None) -> Json:
    whole: Json = {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "id": _id(person),
        "externalId": person.subject,
        "userName": person.email,
        "displayName": person.name,
        "active": person.active,
        "emails": [{"value": person.email, "type": "work", "primary": True}],
        "groups": [{"value": f"group-{name}", "display": name} for name in sorted(person.groups)],
    }
    return {name: value for name, value in whole.items() if wanted is None or name in wanted | _ALWAYS}


def _error(status: int, scim_type: str, detail: str) -> tuple[int, bytes]:
    body = {
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
        "status": str(status),
        "scimType": scim_type,
        "detail": detail,
    }
    return status, json.dumps(body).encode()
