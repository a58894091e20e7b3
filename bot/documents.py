"""``passport documents``: Passport's own Systems Manager documents, in every account and region."""

from collections.abc import Iterator

from bot import wiring
from bot.settings import Settings
from provisioning.documents import DocumentsClient, documents
from provisioning.documents import check as check_documents
from provisioning.documents import publish as publish_documents
from provisioning.documents import template as cloudformation_template


def publish(settings: Settings, *, role: str | None = None) -> int:
    """Create or update what differs; as the role of this name in every account, if given, which may do so."""
    for place, client in _clients(settings, role):
        changed = publish_documents(client, settings.document_prefix)
        print(f"{place}: {'published ' + ', '.join(changed) if changed else 'all documents are up to date'}")
    return 0


def check(settings: Settings) -> int:
    """Say what is missing or differs; 1 if anything does."""
    status = 0
    for place, client in _clients(settings):
        findings = check_documents(client, settings.document_prefix)
        status = 1 if findings else status
        for sentence in [finding.sentence for finding in findings] or ["all documents are up to date"]:
            print(f"{place}: {sentence}")
    return status


def show(settings: Settings) -> int:
    """Print the documents, for review or for deploying them by other means."""
    for document in documents(settings.document_prefix):
        print(document.content)
    return 0


def template() -> int:
    """Print them as a CloudFormation template; no settings are needed."""
    print(cloudformation_template())
    return 0


def _clients(settings: Settings, role: str | None = None) -> Iterator[tuple[str, DocumentsClient]]:
    sessions = wiring.sessions(settings, role=role)
    for account in settings.accounts:
        sessions.confirm_account(account.name)
        for region in account.regions:
            yield f"{account.name} {region}", sessions.client(account.name, region, "ssm")
