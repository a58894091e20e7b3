"""The operations about sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandbox.aws.callers import Caller
from sandbox.aws.document_calls import DocumentCalls
from sandbox.aws.documents import check_parameters, filled_properties
from sandbox.aws.errors import AwsError
from sandbox.aws.faults import Faults
from sandbox.aws.nodes import Nodes
from sandbox.aws.pages import page
from sandbox.aws.sessions import Session, Sessions

Request = dict[str, Any]
Answer = dict[str, Any]


class SessionCalls:
    """Session Manager for all accounts and regions."""

    def __init__(self, *, documents: DocumentCalls, nodes: Nodes, sessions: Sessions, faults: Faults) -> None:
        self._documents = documents
        self._nodes = nodes
        self._sessions = sessions
        self._faults = faults

    def operations(self) -> dict[str, Callable[[Caller, Request], Answer]]:
        """What this answers, by the operation's name."""
        return {
            "StartSession": self._start_session,
            "ResumeSession": self._resume_session,
            "TerminateSession": self._terminate_session,
            "DescribeSessions": self._describe_sessions,
        }

    def _start_session(self, caller: Caller, request: Request) -> Answer:
        if "DocumentName" not in request:
            raise _denied(caller)
        document = self._documents.find(caller, request["DocumentName"])
        if document.kind != "Session":
            raise AwsError("InvalidDocument", f"Document {document.name} is not a Session document.")
        content = document.versions[document.default]
        values = check_parameters(content, request.get("Parameters", {}))
        if content.session_type != "Port":
            raise AwsError("InvalidDocument", f"The sandbox has no sessions of type {content.session_type}.")
        server = self._nodes.find(request["Target"], caller.account, caller.region)
        if server is None or not self._faults.connects(server):
            raise AwsError("TargetNotConnected", f"{request['Target']} is not connected.")
        session = self._sessions.start(
            server=server,
            account=caller.account,
            region=caller.region,
            owner=caller.arn,
            document=document.name,
            properties=filled_properties(content, values),
            reason=request.get("Reason", ""),
        )
        return self._open(session)

    def _resume_session(self, caller: Caller, request: Request) -> Answer:
        session = self._session(caller, request["SessionId"])
        if session is None or session.ended_at:
            raise AwsError("DoesNotExistException", "The session does not exist.")
        return self._open(session)

    def _open(self, session: Session) -> Answer:
        return {
            "SessionId": session.id,
            "TokenValue": session.new_token(),
            "StreamUrl": self._sessions.stream_url(session),
        }

    def _terminate_session(self, caller: Caller, request: Request) -> Answer:
        session = self._session(caller, request["SessionId"])
        if session is not None:
            self._sessions.end(session)
        return {"SessionId": request["SessionId"]}

    def _session(self, caller: Caller, session_id: str) -> Session | None:
        session = self._sessions.all.get(session_id)
        if session is None or (session.account, session.region) != (caller.account, caller.region):
            return None
        return session

    def _describe_sessions(self, caller: Caller, request: Request) -> Answer:
        self._sessions.end_idle()
        ended = request["State"] == "History"
        found = [
            session.described()
            for session in self._sessions.all.values()
            if (session.account, session.region) == (caller.account, caller.region) and bool(session.ended_at) == ended
        ]
        columns = {"Target": "Target", "Owner": "Owner", "Status": "Status", "SessionId": "SessionId"}
        for rule in request.get("Filters", []):
            if rule["key"] not in columns:
                raise AwsError("InvalidFilterKey", f"The sandbox does not filter by {rule['key']}.")
            found = [row for row in found if row[columns[rule["key"]]] == rule["value"]]
        return page("Sessions", found, request, 200)


def _denied(caller: Caller) -> AwsError:
    """A session without a document is a shell as root: no role of Passport's or of a person's has that."""
    resource = f"arn:aws:ssm:{caller.region}:{caller.account}:document/SSM-SessionManagerRunShell"
    return AwsError(
        "AccessDeniedException",
        f"User: {caller.arn} is not authorized to perform: ssm:StartSession on resource: {resource} "
        "because no identity-based policy allows the ssm:StartSession action",
    )
