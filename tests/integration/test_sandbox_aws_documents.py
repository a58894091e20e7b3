"""Documents of the sandbox's Systems Manager: as strict as the real service's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.aws import AwsDouble, documents
from tests.integration.aws_lab import GOOD, client, document, publish, refused


@pytest.fixture(scope="module")
def aws() -> Iterator[AwsDouble]:
    with AwsDouble() as aws:
        yield aws


@pytest.fixture
def ssm(aws: AwsDouble, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A client in a region of the test's own, so that nothing is there yet."""
    regions = ["eu-west-1", "eu-west-2", "eu-west-3", "eu-central-1", "us-east-1", "us-west-2", "us-east-2"]
    found = client(aws, "ssm", region=regions[hash(request.node.name) % len(regions)])
    yield found
    for row in found.list_documents(Filters=[{"Key": "Owner", "Values": ["Self"]}])["DocumentIdentifiers"]:
        found.delete_document(Name=row["Name"])
    found.close()


def test_a_document_and_its_versions(ssm: Any) -> None:
    publish(ssm, "Passport-Create", "echo one")
    made = ssm.describe_document(Name="Passport-Create")["Document"]
    assert (made["DocumentVersion"], made["DefaultVersion"], made["PlatformTypes"]) == ("1", "1", ["Linux"])
    assert {row["Name"] for row in made["Parameters"]} == {"request", "mode", "name"}
    second = document("echo two")
    ssm.update_document(Name="Passport-Create", Content=second, DocumentVersion="$LATEST")
    assert ssm.get_document(Name="Passport-Create")["DocumentVersion"] == "1"
    assert ssm.get_document(Name="Passport-Create", DocumentVersion="$LATEST")["Content"] == second
    ssm.update_document_default_version(Name="Passport-Create", DocumentVersion="2")
    assert ssm.describe_document(Name="Passport-Create")["Document"]["DefaultVersion"] == "2"


def test_documents_are_tagged_listed_and_deleted(ssm: Any) -> None:
    publish(ssm, "Passport-Create")
    publish(ssm, "Passport-Remove")
    tags = [{"Key": "passport", "Value": "0.1"}]
    ssm.add_tags_to_resource(ResourceType="Document", ResourceId="Passport-Create", Tags=tags)
    mine = [{"Key": "Owner", "Values": ["Self"]}]
    named = ssm.list_documents(Filters=[*mine, {"Key": "tag:passport", "Values": ["0.1"]}])["DocumentIdentifiers"]
    assert [(row["Name"], row["Tags"]) for row in named] == [("Passport-Create", tags)]
    assert len(ssm.list_documents(Filters=mine)["DocumentIdentifiers"]) == 2
    first = ssm.list_documents(Filters=mine, MaxResults=1)
    rest = ssm.list_documents(Filters=mine, MaxResults=1, NextToken=first["NextToken"])
    assert [rest["DocumentIdentifiers"][0]["Name"], "NextToken" in rest] == ["Passport-Remove", False]
    ssm.delete_document(Name="Passport-Remove")
    with refused("InvalidDocument", "Passport-Remove does not exist"):
        ssm.get_document(Name="Passport-Remove")


def test_accounts_and_regions_have_documents_of_their_own(aws: AwsDouble) -> None:
    home, away = client(aws, "ssm", region="ap-south-1"), client(aws, "ssm", "222222222222", "ap-south-1")
    publish(home, "Passport-Create")
    publish(away, "Passport-Create")
    with refused("InvalidDocument"):
        client(aws, "ssm", "333333333333", "ap-south-1").get_document(Name="Passport-Create")
    with refused("InvalidDocument"):
        client(aws, "ssm", region="sa-east-1").get_document(Name="Passport-Create")


def test_refusals_about_names_and_versions(ssm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(ssm, "Passport-Create", "echo one")
    with refused("DocumentAlreadyExists"):
        publish(ssm, "Passport-Create", "echo other")
    with refused("DuplicateDocumentContent"):
        ssm.update_document(Name="Passport-Create", Content=document("echo one"), DocumentVersion="$LATEST")
    with refused("InvalidDocument"):
        ssm.update_document(Name="Passport-Nothing", Content=document(), DocumentVersion="$LATEST")
    with refused("InvalidDocumentVersion"):
        ssm.get_document(Name="Passport-Create", DocumentVersion="7")
    with refused("InvalidDocumentVersion"):
        ssm.update_document_default_version(Name="Passport-Create", DocumentVersion="7")
    with refused("ValidationException", "pattern"):
        ssm.get_document(Name="Passport Create!")
    with refused("ValidationException", "reserved"):
        publish(ssm, "AWS-Own")
    monkeypatch.setattr("sandbox.aws.document_calls.MOST_VERSIONS", 1)
    with refused("DocumentVersionLimitExceeded"):
        ssm.update_document(Name="Passport-Create", Content=document("echo two"), DocumentVersion="$LATEST")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("{", "InvalidDocumentContent"),
        ("[]", "InvalidDocumentContent"),
        (json.dumps({"schemaVersion": "1.2"}), "InvalidDocumentSchemaVersion"),
        (json.dumps({"schemaVersion": "2.2", "mainSteps": []}), "InvalidDocumentContent"),
        (document("echo {{ nowhere }}"), "InvalidDocumentContent"),
        (document(parameters={"a": {"type": "Text"}}), "InvalidDocumentContent"),
        (document(parameters={"a-b": {"type": "String"}}), "InvalidDocumentContent"),
        (document(parameters={"a": {"type": "String", "pattern": "x"}}), "InvalidDocumentContent"),
        (document(parameters={"a": {"type": "String", "allowedPattern": "("}}), "InvalidDocumentContent"),
        (document(parameters={"a": {"type": "String", "interpolationType": "SHELL"}}), "InvalidDocumentContent"),
        (document(parameters={"a": {"type": "StringList", "interpolationType": "ENV_VAR"}}), "InvalidDocumentContent"),
        (
            document(parameters={"a": {"type": "String", "allowedValues": ["x"], "default": "y"}}),
            "InvalidDocumentContent",
        ),
        (document(interpolationType="ENV_VAR"), "InvalidDocumentContent"),
        (document("x" * documents.LARGEST_DOCUMENT), "MaxDocumentSizeExceeded"),
    ],
)
def test_content_that_is_not_a_document(ssm: Any, content: str, code: str) -> None:
    with refused(code):
        ssm.create_document(Name="Passport-Bad", Content=content, DocumentType="Command")


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"request": ["AR-7F3K"], "colour": ["red"]},
        {"request": ["ar-7f3k"]},
        {"request": ["AR-7F3K\n"]},
        {"request": ["AR-7F3K; id"]},
        {"request": ["AR-7F3K", "AR-7F3L"]},
        {"request": []},
        {**GOOD, "mode": ["brutal"]},
        {**GOOD, "name": ["x"]},
        {**GOOD, "name": ["far too long"]},
    ],
)
def test_parameters_that_the_document_does_not_allow(
    aws: AwsDouble, ssm: Any, parameters: dict[str, list[str]]
) -> None:
    publish(ssm, "Passport-Create")
    server = aws.add_server("web-1", region=ssm.meta.region_name)
    with refused("InvalidParameters"):
        ssm.send_command(InstanceIds=[server.instance_id], DocumentName="Passport-Create", Parameters=parameters)
    assert [command for command in aws.commands if server.instance_id in command.invocations] == []


def test_requests_are_held_against_the_service_model(ssm: Any) -> None:
    with refused("ValidationException", "less than or equal to 50"):
        ssm.list_documents(MaxResults=51)
    with refused("ValidationException", "enum value set"):
        ssm.create_document(Name="Passport-Bad", Content=document(), DocumentType="Recipe")
    with refused("ValidationException", "regular expression pattern"):
        ssm.create_document(Name="Passport-Bad", Content=document(), TargetType="no slash first")
