"""The templates under ``deploy/``: clean, within CloudFormation's limits, and they allow what the code calls, no more."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from botocore.session import get_session

from provisioning.documents import PREFIX, documents, template
from sandbox.aws.authorization import FREE
from sandbox.aws.iam import Ask, PolicyError, actions, decide
from sandbox.aws.templates import DEPLOY, Stack, TemplateError, deploy, load

ROOT = Path(__file__).parents[2]
ACCOUNT, PASSPORT = "222222222222", "arn:aws:iam::111111111111:role/Passport"
SERVERS = f"arn:aws:iam::{ACCOUNT}:role/PassportServers"
KEY = "arn:aws:kms:eu-west-1:111111111111:key/1234abcd-12ab-34cd-56ef-1234567890ab"
# Page "CloudFormation quotas": a template body in the call, and one in S3.
MOST_DIRECT, MOST_BY_S3 = 51_200, 1_000_000
# botocore's names for what is not an API of the same name: it is asked for beside one.
BESIDE = {"sts:SetSourceIdentity"}


def account_stack(**parameters: str) -> Stack:
    given: dict[str, str | list[str]] = {"PassportRoleArn": PASSPORT, "ExternalId": "sesame-2222", **parameters}
    return deploy("passport-account.yaml", ACCOUNT, given)


def own_stack(**parameters: str) -> Stack:
    return deploy("passport.yaml", "111111111111", {"AccountRoleArns": [SERVERS], **parameters})


def test_cfn_lint_has_nothing_to_say() -> None:
    templates = sorted(str(path) for path in DEPLOY.iterdir())
    done = subprocess.run([Path(sys.executable).with_name("cfn-lint"), "--include-checks", "I", "--", *templates],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("*.yaml")), ids=lambda path: path.name)
def test_templates_can_be_given_directly(path: Path) -> None:
    assert len(path.read_bytes()) <= MOST_DIRECT


def test_the_template_of_the_documents_makes_what_the_code_publishes() -> None:
    text = (DEPLOY / "passport-documents.json").read_text()
    assert text == template() + "\n", "write it anew: make format"
    assert MOST_DIRECT < len(text) <= MOST_BY_S3  # so docs/installing.md sends it by S3
    made = json.loads(text)
    own = {document.name: json.loads(document.content) for document in documents("")}
    assert {name: each["Properties"]["Content"] for name, each in made["Resources"].items()} == own
    for name, each in made["Resources"].items():
        assert each["Type"] == "AWS::SSM::Document"
        assert each["Properties"]["Name"] == {"Fn::Sub": "${DocumentPrefix}" + name}
        assert each["Properties"]["DocumentType"] == "Command"
        assert each["Properties"]["UpdateMethod"] == "NewVersion"
    assert made["Parameters"]["DocumentPrefix"]["Default"] == PREFIX


# --- what the code calls -------------------------------------------------------------------------------------------


def called(tree: ast.AST, source: str) -> Iterator[str]:
    """The actions of calls like ``sessions.call(…, "ssm", "send_command")``, and of plain clients."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        words = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        if node.func.attr in {"call", "pages"}:
            services = [word for word in words if word in {"ec2", "ssm", "sts", "kms"}]
            assert len(services) == 1, f"{source}:{node.lineno}: name the service and the operation in place"
            yield action(services[0], words[words.index(services[0]) + 1])
        elif node.func.attr in OPERATIONS and "client" in ast.unparse(node.func.value):
            yield OPERATIONS[node.func.attr]


def action(service: str, method: str) -> str:
    return f"{service}:{''.join(word.capitalize() for word in method.split('_'))}"


def snake(operation: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", operation).lower()


MODELS = {name: get_session().get_service_model(name).operation_names for name in ("ec2", "kms", "ssm", "sts")}
OPERATIONS = {snake(name): f"{service}:{name}" for service, names in MODELS.items() for name in names}


def code_calls() -> set[str]:
    found = set()
    for folder in ("provisioning", "bot"):
        for path in (ROOT / folder).rglob("*.py"):
            found |= set(called(ast.parse(path.read_text()), str(path.relative_to(ROOT))))
    return found


def granted() -> dict[str, set[str]]:
    account = account_stack(PublisherArn=PASSPORT)
    return {
        "own": actions(own_stack(CaKeyArn=KEY).statements("Policy")),
        "account": actions(account.statements("Policy")),
        "publisher": actions(account.statements("PublisherPolicy")),
    }


def test_every_call_of_the_code_is_allowed_somewhere() -> None:
    missing = code_calls() - FREE - set().union(*granted().values())
    assert not missing, f"deploy/ allows nobody {sorted(missing)}"


def test_nothing_is_allowed_that_no_code_calls() -> None:
    unused = set().union(*granted().values()) - code_calls() - BESIDE
    assert not unused, f"no code calls {sorted(unused)}"


def test_every_action_is_one_of_awss() -> None:
    known = {f"{service}:{name}" for service, names in MODELS.items() for name in names}
    for path in DEPLOY.glob("*.yaml"):
        for statement in statements_of(load(path)):
            named = statement["Action"]
            for each in named if isinstance(named, list) else [named]:
                service = each.partition(":")[0]
                assert each in known | BESIDE or service == "iam", f"{path.name}: {each}"


def statements_of(tree: Any) -> Iterator[Mapping[str, Any]]:
    """Every statement of a policy, wherever it stands."""
    if isinstance(tree, dict):
        if "Effect" in tree and "Action" in tree:
            yield tree
        for each in tree.values():
            yield from statements_of(each)
    elif isinstance(tree, list):
        for each in tree:
            yield from statements_of(each)


def test_the_documents_are_the_codes_own() -> None:
    statements = account_stack(PublisherArn=PASSPORT, DocumentPrefix="Staging-")
    own = {f"arn:aws:ssm:*:{ACCOUNT}:document/{document.name}" for document in documents("Staging-")}
    for policy, action_name in (("Policy", "ssm:SendCommand"), ("Policy", "ssm:GetDocument"),
                                ("PublisherPolicy", "ssm:UpdateDocument")):  # fmt: skip
        named = {
            resource
            for each in statements.statements(policy)
            if each["Effect"] == "Allow" and action_name in each["Action"]
            for resource in each["Resource"]
            if ":document/" in resource
        }
        assert named == own


# --- what nobody may -----------------------------------------------------------------------------------------------

INSTANCE = f"arn:aws:ec2:eu-west-1:{ACCOUNT}:instance/i-0123456789abcdef0"
TAGS = frozenset({"ssm:resourceTag/*", "aws:ResourceTag/*", "ssm:SessionDocumentAccessCheck"})
CHECK = "ssm:SessionDocumentAccessCheck"


def verdict(action_name: str, resource: str, stack: Stack | None = None, **context: str) -> str:
    told = {key.replace("__", ":").replace("_OF_", "/"): value for key, value in context.items()}
    return decide((stack or account_stack()).statements("Policy"),
                  Ask(action=action_name, resource=resource, context=told, keys=TAGS))  # fmt: skip


@pytest.mark.parametrize("name", ["AWS-RunShellScript", "AWS-RunPowerShellScript", "AWS-RunRemoteScript"])
@pytest.mark.parametrize("owner", ["", ACCOUNT])
def test_amazons_documents_are_denied(name: str, owner: str) -> None:
    assert verdict("ssm:SendCommand", f"arn:aws:ssm:eu-west-1:{owner}:document/{name}") == "denied"


def test_other_documents_are_not_allowed() -> None:
    for name in ("Passport-Evil", "CreateUser", "Other-CreateUser", "Passport-CreateUserX"):
        assert verdict("ssm:SendCommand", f"arn:aws:ssm:eu-west-1:{ACCOUNT}:document/{name}") == "not allowed"
    shared = "arn:aws:ssm:eu-west-1:333333333333:document/Passport-CreateUser"
    assert verdict("ssm:SendCommand", shared) == "not allowed"


def test_a_session_without_a_document_is_denied() -> None:
    unchecked = verdict("ssm:StartSession", INSTANCE, account_stack(Servers="all"), **{CHECK: "false"})
    assert unchecked == "not allowed"
    shell = f"arn:aws:ssm:eu-west-1:{ACCOUNT}:document/SSM-SessionManagerRunShell"
    onward = "arn:aws:ssm:eu-west-1::document/AWS-StartPortForwardingSessionToRemoteHost"
    assert {verdict("ssm:StartSession", each) for each in (shell, onward)} == {"denied"}


def test_a_server_without_the_tag_is_not_allowed() -> None:
    for action_name, more in (("ssm:SendCommand", {}), ("ssm:StartSession", {CHECK: "true"})):
        for resource in (INSTANCE, f"arn:aws:ssm:eu-west-1:{ACCOUNT}:managed-instance/mi-0123456789abcdef0"):
            assert verdict(action_name, resource, **more) == "not allowed"
            assert verdict(action_name, resource, **more, **{"ssm:resourceTag/passport": "no"}) == "not allowed"
            assert verdict(action_name, resource, **more, **{"ssm:resourceTag/passport": "enabled"}) == "allowed"
            assert verdict(action_name, resource, account_stack(Servers="all"), **more) == "allowed"


def test_another_accounts_server_is_not_allowed() -> None:
    other = INSTANCE.replace(ACCOUNT, "333333333333")
    assert verdict("ssm:SendCommand", other, account_stack(Servers="all")) == "not allowed"


def test_sessions_of_others_cannot_be_ended() -> None:
    session = f"arn:aws:ssm:eu-west-1:{ACCOUNT}:session/passport-0123456789abcdef0"
    tag = "ssm:resourceTag/aws:ssmmessages:session-id"
    assert verdict("ssm:TerminateSession", session, **{tag: "AROAPASSPORTSERVERS:passport-2"}) == "allowed"
    for owner in ("AROAPASSPORTSERVERSX:passport", "AIDAANA", "AROAOTHER:passport"):
        assert verdict("ssm:TerminateSession", session, **{tag: owner}) == "not allowed"
    assert verdict("ssm:TerminateSession", session) == "not allowed"


def test_a_document_cannot_be_changed_by_passport() -> None:
    document = f"arn:aws:ssm:eu-west-1:{ACCOUNT}:document/Passport-CreateUser"
    for name in ("CreateDocument", "UpdateDocument", "UpdateDocumentDefaultVersion", "ModifyDocumentPermission"):
        assert verdict(f"ssm:{name}", document) == "denied"


def test_only_passports_role_with_the_external_id_becomes_the_accounts() -> None:
    trust = account_stack().trust("Role")
    asked = {"action": "sts:AssumeRole", "resource": SERVERS, "keys": frozenset({"sts:ExternalId"})}
    right: dict[str, Any] = {"principal": PASSPORT, "context": {"sts:ExternalId": "sesame-2222"}}
    assert decide(trust, Ask(**asked, **right)) == "allowed"
    for wrong in ({"principal": PASSPORT + "2"}, {"context": {}}, {"context": {"sts:ExternalId": "sesame"}}):
        assert decide(trust, Ask(**asked, **(right | wrong))) == "not allowed"


def test_without_a_key_nothing_is_signed() -> None:
    assert "kms:Sign" not in actions(own_stack().statements("Policy"))
    keys = frozenset({"kms:SigningAlgorithm", "kms:MessageType"})
    statements = own_stack(CaKeyArn=KEY).statements("Policy")
    context = {"kms:SigningAlgorithm": "ECDSA_SHA_256", "kms:MessageType": "RAW"}
    assert decide(statements, Ask(action="kms:Sign", resource=KEY, context=context, keys=keys)) == "allowed"
    for key, told in ((KEY + "0", context), (KEY, context | {"kms:MessageType": "DIGEST"})):
        assert decide(statements, Ask(action="kms:Sign", resource=key, context=told, keys=keys)) == "not allowed"


@pytest.mark.parametrize("first", [{}, {"CaKeyArn": KEY}])
def test_while_the_key_changes_both_may_sign(first: dict[str, str]) -> None:
    coming = KEY.replace("1234abcd", "5678abcd")
    statements = own_stack(NextCaKeyArn=coming, **first).statements("Policy")
    for action in ("kms:GetPublicKey", "kms:DescribeKey"):
        for key in (coming, *first.values()):
            assert decide(statements, Ask(action=action, resource=key, context={}, keys=frozenset())) == "allowed"
        assert decide(statements, Ask(action=action, resource=KEY + "0", context={}, keys=frozenset())) == "not allowed"


@pytest.mark.parametrize("runs_on", ["ec2", "ecs", "oidc"])
def test_passports_own_role_has_one_way_in(runs_on: str) -> None:
    stack = own_stack(RunsOn=runs_on, OidcProviderArn=f"arn:aws:iam::{ACCOUNT}:oidc-provider/x", OidcIssuer="x/y",
                      OidcSubject="system:serviceaccount:passport:passport")  # fmt: skip
    (role,) = [name for name in stack.resources if name.endswith("Role")]
    assert role.lower() == f"{runs_on}role"
    trust = stack.resources[role]["AssumeRolePolicyDocument"]
    (statement,) = (json.loads(trust) if isinstance(trust, str) else trust)["Statement"]
    assert statement["Effect"] == "Allow" and "*" not in json.dumps(statement)
    if runs_on == "oidc":
        assert statement["Condition"]["StringEquals"]["x/y:sub"] == "system:serviceaccount:passport:passport"


# --- the evaluator knows or says so --------------------------------------------------------------------------------

ALLOW = {"Effect": "Allow", "Action": "ssm:SendCommand", "Resource": "*"}
ASK = Ask(action="ssm:SendCommand", resource="arn:x", keys=frozenset({"aws:RequestedRegion"}))


@pytest.mark.parametrize(
    "statement",
    [
        ALLOW | {"NotAction": "ssm:StartSession"},
        ALLOW | {"Effect": "Perhaps"},
        ALLOW | {"Condition": {"StringNotEquals": {"aws:RequestedRegion": "eu-west-1"}}},
        ALLOW | {"Condition": {"StringEquals": {"aws:SourceIp": "10.0.0.1"}}},
        ALLOW | {"Resource": "arn:${aws:userid}"},
        ALLOW | {"Action": [1]},
    ],
)
def test_an_unknown_thing_in_a_policy_is_an_error(statement: Mapping[str, Any]) -> None:
    with pytest.raises(PolicyError):
        decide([statement], ASK)


def test_a_wildcard_is_not_taken_for_a_list_of_actions() -> None:
    with pytest.raises(PolicyError):
        actions([ALLOW | {"Action": "ssm:*"}])


def test_an_unknown_thing_in_a_template_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text("Resources: {Role: !Join ['', [a, b]]}")
    with pytest.raises(TemplateError):
        load(tmp_path / "odd.yaml")
    with pytest.raises(TemplateError):
        account_stack(Colour="red")


# --- bastions are apart --------------------------------------------------------------------------------------------


def test_nothing_is_changed_in_ec2_without_the_bastions_stack() -> None:
    allowed = set().union(*granted().values())
    assert {each for each in allowed if each.startswith("ec2:")} == {"ec2:DescribeInstances"}


def test_bastions_change_only_what_is_tagged_as_theirs() -> None:
    wanted = {"VpcId": "vpc-1", "SubnetId": "subnet-1", "ImageId": "ami-1"}
    statements = deploy("passport-bastion.yaml", ACCOUNT, wanted).statements("Policy")
    keys = frozenset({"aws:ResourceTag/*", "aws:RequestTag/*", "ec2:CreateAction", "ec2:InstanceType"})
    ours, theirs = {"aws:ResourceTag/passport": "bastion"}, {"aws:ResourceTag/passport": "enabled"}
    for name in ("TerminateInstances", "AuthorizeSecurityGroupIngress", "DeleteSecurityGroup", "CreateTags"):
        place = f"arn:aws:ec2:eu-west-1:{ACCOUNT}:"
        place += "instance/i-1" if name == "TerminateInstances" else "security-group/sg-1"
        for context in ({}, theirs):
            asked = Ask(action=f"ec2:{name}", resource=place, context=context, keys=keys)
            assert decide(statements, asked) == "not allowed"
        if name != "CreateTags":
            assert decide(statements, Ask(action=f"ec2:{name}", resource=place, context=ours, keys=keys)) == "allowed"
