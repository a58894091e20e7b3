"""Lists come in pages."""

from __future__ import annotations

from typing import Any

from sandbox.aws.errors import AwsError


def page(name: str, rows: list[dict[str, Any]], request: dict[str, Any], most: int) -> dict[str, Any]:
    """A page of a list, and the token of the next one."""
    begin = request.get("NextToken", "0") or "0"
    if not begin.isdigit():
        raise AwsError("InvalidNextToken", "The specified token isn't valid.")
    end = int(begin) + int(request.get("MaxResults", most))
    answer: dict[str, Any] = {name: rows[int(begin) : end]}
    if end < len(rows):
        answer["NextToken"] = str(end)
    return answer
