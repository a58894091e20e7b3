"""The operations about documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sandbox.aws.built_in import built_in_documents
from sandbox.aws.callers import Caller
from sandbox.aws.documents import MOST_VERSIONS, RESERVED, Content, Document, parse_content
from sandbox.aws.errors import AwsError
from sandbox.aws.pages import page

Request = dict[str, Any]
Answer = dict[str, Any]


class DocumentCalls:
    """Every account's and region's documents, and Amazon's own."""

    def __init__(self) -> None:
        self._documents: dict[tuple[str, str, str], Document] = {}
        self._built_in = built_in_documents()

    def operations(self) -> dict[str, Callable[[Caller, Request], Answer]]:
        """What this answers, by the operation's name."""
        return {
            "CreateDocument": self._create_document,
            "UpdateDocument": self._update_document,
            "UpdateDocumentDefaultVersion": self._update_default,
            "DescribeDocument": self._describe_document,
            "GetDocument": self._get_document,
            "ListDocuments": self._list_documents,
            "DeleteDocument": self._delete_document,
            "AddTagsToResource": self._add_tags,
            "ListTagsForResource": self._list_tags,
        }

    def find(self, caller: Caller, name: str) -> Document:
        """A document by its name; raise AwsError (InvalidDocument) when there is none."""
        return self._built_in.get(name) or self._own_document(caller, name)

    def _create_document(self, caller: Caller, request: Request) -> Answer:
        name, kind = request["Name"], request.get("DocumentType", "Command")
        if name.lower().startswith(RESERVED):
            raise AwsError("ValidationException", f"The document name {name} begins with a reserved prefix.")
        if (caller.account, caller.region, name) in self._documents:
            raise AwsError("DocumentAlreadyExists", f"Document with same name {name} already exists")
        content = self._content(request, kind)
        document = Document(name=name, owner=caller.account, kind=kind, target_type=request.get("TargetType", ""))
        document.versions["1"] = content
        document.version_names["1"] = request.get("VersionName", "")
        document.tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags", [])}
        self._documents[caller.account, caller.region, name] = document
        return {"DocumentDescription": self._described(document, "1")}

    def _update_document(self, caller: Caller, request: Request) -> Answer:
        document = self._own_document(caller, request["Name"])
        # "$LATEST" is the only version that can be updated, page UpdateDocument.
        if document.version(request.get("DocumentVersion", "$LATEST")) != document.latest:
            raise AwsError("InvalidDocumentVersion", "Only the latest version can be updated.")
        content = self._content(request, document.kind)
        if any(content.hash == known.hash for known in document.versions.values()):
            raise AwsError(
                "DuplicateDocumentContent", "The content of the association document matches another document."
            )
        name = request.get("VersionName", "")
        if name and name in document.version_names.values():
            raise AwsError("DuplicateDocumentVersionName", "The version name has already been used in this document.")
        if len(document.versions) >= MOST_VERSIONS:
            raise AwsError("DocumentVersionLimitExceeded", "The document has too many versions.")
        document.latest = str(int(document.latest) + 1)
        document.versions[document.latest] = content
        document.version_names[document.latest] = name
        return {"DocumentDescription": self._described(document, document.latest)}

    def _update_default(self, caller: Caller, request: Request) -> Answer:
        document = self._own_document(caller, request["Name"])
        document.default = document.version(request["DocumentVersion"])
        return {"Description": {"Name": document.name, "DefaultVersion": document.default}}

    def _describe_document(self, caller: Caller, request: Request) -> Answer:
        document = self.find(caller, request["Name"])
        return {"Document": self._described(document, document.version(request.get("DocumentVersion")))}

    def _get_document(self, caller: Caller, request: Request) -> Answer:
        document = self.find(caller, request["Name"])
        version = document.version(request.get("DocumentVersion"))
        return {
            "Name": document.name,
            "CreatedDate": document.created_at,
            "VersionName": document.version_names.get(version, ""),
            "DocumentVersion": version,
            "Status": "Active",
            "Content": document.versions[version].text,
            "DocumentType": document.kind,
            "DocumentFormat": "JSON",
        }

    def _list_documents(self, caller: Caller, request: Request) -> Answer:
        found = [*self._built_in.values(), *self._of(caller)]
        for rule in request.get("Filters", []):
            found = [document for document in found if _document_passes(document, rule["Key"], rule.get("Values", []))]
        named = [
            {
                "Name": document.name,
                "Owner": document.owner,
                "CreatedDate": document.created_at,
                "PlatformTypes": platforms(document.versions[document.default]),
                "DocumentVersion": document.default,
                "DocumentType": document.kind,
                "SchemaVersion": "2.2",
                "DocumentFormat": "JSON",
                "Tags": _pairs(document.tags),
            }
            for document in sorted(found, key=lambda each: each.name)
        ]
        return page("DocumentIdentifiers", named, request, 50)

    def _delete_document(self, caller: Caller, request: Request) -> Answer:
        document = self._own_document(caller, request["Name"])
        if "DocumentVersion" in request:
            version = document.version(request["DocumentVersion"])
            if version == document.default:
                raise AwsError("InvalidDocumentOperation", "The default version can't be deleted on its own.")
            del document.versions[version]
        else:
            del self._documents[caller.account, caller.region, document.name]
        return {}

    def _add_tags(self, caller: Caller, request: Request) -> Answer:
        if request["ResourceType"] != "Document":
            raise AwsError("InvalidResourceType", "The sandbox tags documents only.")
        self._tagged(caller, request).tags |= {tag["Key"]: tag["Value"] for tag in request["Tags"]}
        return {}

    def _list_tags(self, caller: Caller, request: Request) -> Answer:
        return {"TagList": _pairs(self._tagged(caller, request).tags)}

    def _tagged(self, caller: Caller, request: Request) -> Document:
        document = self._documents.get((caller.account, caller.region, request["ResourceId"]))
        if document is None:
            raise AwsError("InvalidResourceId", "The resource ID isn't valid.")
        return document

    def _content(self, request: Request, kind: str) -> Content:
        if request.get("DocumentFormat", "JSON") != "JSON":
            raise AwsError("InvalidDocumentContent", "The sandbox reads JSON documents only.")
        return parse_content(request["Content"], kind)

    def _of(self, caller: Caller) -> list[Document]:
        mine = (caller.account, caller.region)
        return [document for key, document in self._documents.items() if key[:2] == mine]

    def _own_document(self, caller: Caller, name: str) -> Document:
        document = self._documents.get((caller.account, caller.region, name))
        if document is None:
            raise AwsError("InvalidDocument", f"Document with name {name} does not exist.")
        return document

    def _described(self, document: Document, version: str) -> Answer:
        content = document.versions[version]
        return {
            "Hash": content.hash,
            "HashType": "Sha256",
            "Name": document.name,
            "VersionName": document.version_names.get(version, ""),
            "Owner": document.owner,
            "CreatedDate": document.created_at,
            "Status": "Active",
            "DocumentVersion": version,
            "Description": content.description,
            "Parameters": [_parameter(name, rules) for name, rules in content.parameters.items()],
            "PlatformTypes": platforms(content),
            "DocumentType": document.kind,
            "SchemaVersion": "2.2",
            "LatestVersion": document.latest,
            "DefaultVersion": document.default,
            "DocumentFormat": "JSON",
            "TargetType": document.target_type,
            "Tags": _pairs(document.tags),
        }


def _parameter(name: str, rules: Any) -> Answer:
    row = {"Name": name, "Type": "StringList" if rules["type"] == "StringList" else "String"}
    row["Description"] = rules.get("description", "")
    if "default" in rules:
        row["DefaultValue"] = str(rules["default"])
    return row


def platforms(content: Content) -> list[str]:
    """The platforms that a document has a step for."""
    scripts = {"aws:runShellScript": ["Linux", "MacOS"], "aws:runPowerShellScript": ["Windows"]}
    named = [[step.platform] if step.platform else scripts[step.action] for step in content.steps]
    return sorted({platform for platforms in named for platform in platforms}) or ["Linux", "MacOS", "Windows"]


def _pairs(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _document_passes(document: Document, key: str, values: Sequence[str]) -> bool:
    if key == "Name":
        return any(document.name.startswith(value) for value in values)
    if key == "Owner":
        owners = {"Self": document.owner != "Amazon", "Amazon": document.owner == "Amazon", "All": True}
        return any(owners.get(value, False) for value in values)
    if key == "DocumentType":
        return document.kind in values
    if key.startswith("tag:"):
        return document.tags.get(key[4:]) in values
    raise AwsError("InvalidFilterKey", f"The filter key {key} isn't valid.")
