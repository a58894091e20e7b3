"""What the doctor finds about the certificate authority, each with its mend."""

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from access.authorities import AuthorityRole
from bot import wiring
from bot.authority import AuthorityKeys
from bot.ca_doctor import look_at_authority
from bot.settings import load
from bot.verdicts import Finding
from sandbox.aws import AwsDouble
from tests.integration.test_ca_command import place as place  # noqa: PLC0414 - a fixture
from tests.integration.test_ca_command import run, start
from tests.integration.test_kms_key import aws as aws  # noqa: PLC0414 - a fixture
from tests.integration.test_kms_key import kms, make_key


def findings() -> list[Finding]:
    return list(look_at_authority(load()))


def problems() -> list[str]:
    return [finding.sentence for finding in findings() if finding.is_wrong]


def test_nothing_is_wrong_before_and_after_the_first_start_and_in_a_rotation() -> None:
    for act in (lambda: 0, start, lambda: run("rotate"), lambda: run("rotate", "--finish")):
        act()
        assert findings()
        assert problems() == []


def test_a_file_that_others_can_read(place: Path) -> None:
    start()
    run("rotate")
    for path in place.glob("passport-ca.sealed*"):
        path.chmod(0o640)
    assert problems() == [f"Others can read {name}. Mend: chmod 600 {name}" for name in sorted(place_names(place))]


def place_names(place: Path) -> list[str]:
    return [path.name for path in place.glob("passport-ca.sealed*")]


def test_a_key_that_is_on_record_and_not_here(place: Path) -> None:
    start()
    (place / "passport-ca.sealed").unlink()
    (sentence,) = problems()
    assert "is not on this machine. An admin copies" in sentence
    assert "`passport ca rotate --compromised`" in sentence


def test_a_rotation_that_somebody_forgot(monkeypatch: pytest.MonkeyPatch) -> None:
    start()
    run("rotate")
    for days, wrong in ((1, False), (3, True)):
        with monkeypatch.context() as later:
            instant = wiring.now() + timedelta(days=days)
            later.setattr(wiring, "now", lambda instant=instant: instant)
            assert bool(problems()) is wrong
            assert all("Finish it: passport ca rotate --finish" in sentence for sentence in problems())


class TestKms:
    @pytest.fixture
    def arn(self, aws: AwsDouble, monkeypatch: pytest.MonkeyPatch) -> str:
        """A key that the settings name."""
        arn = make_key(aws)
        monkeypatch.setenv("PASSPORT_CA_KMS_KEY", arn)
        return arn

    def test_a_key_that_is_sound(self, arn: str) -> None:
        for act in (lambda: None, start):
            act()
            assert [finding.sentence for finding in findings()] == [f"{arn} is enabled in AWS KMS and signs."]
        assert not Path("passport-ca.sealed").exists()

    def test_a_key_that_is_disabled(self, arn: str, aws: AwsDouble) -> None:
        start()
        kms(aws).disable_key(KeyId=arn.rpartition("/")[2])
        assert problems() == [f"{arn} is Disabled in AWS KMS. Enable it: aws kms enable-key --key-id {arn}"]

    @pytest.mark.parametrize("operation", ["Sign", "GetPublicKey", "DescribeKey"])
    def test_a_role_that_may_not(self, arn: str, aws: AwsDouble, operation: str) -> None:
        start()
        aws.faults.fail(operation, 400)
        assert problems() == [f"AWS does not let Passport's role call kms:{operation} on {arn}. An admin allows it."]

    def test_a_key_of_another_kind(self, aws: AwsDouble, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PASSPORT_CA_KMS_KEY", make_key(aws, "RSA_3072"))
        (sentence,) = problems()
        assert "Make one that is ECC_NIST_P256" in sentence

    def test_a_passport_from_before_keeps_its_file_until_the_rotation(
        self, aws: AwsDouble, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        start()
        file_key = on_record()
        arn = make_key(aws)
        monkeypatch.setenv("PASSPORT_CA_KMS_KEY", arn)
        start()
        assert on_record() == file_key
        (sentence,) = problems()
        assert sentence.endswith("`passport ca rotate` changes over; until then, the key on record signs.")
        assert run("rotate") == 0
        assert run("rotate", "--finish") == 0
        assert problems() == []
        assert on_record() == {"current": arn}

    def test_another_key_under_the_same_name_is_not_used(self, arn: str, aws: AwsDouble) -> None:
        start()
        settings = load()
        store = wiring.open_store(settings, exclusive=False)
        with store.unit_of_work(read_only=True) as uow:
            (found,) = uow.authorities.all()
        store.close()
        keys = AuthorityKeys(settings, wiring.sealer(settings))
        with pytest.raises(Exception, match="is not the key on record"):
            keys.find(replace(found, fingerprint="SHA256:" + "A" * 43))

    def test_aws_that_is_away_does_not_stop_a_later_start(self, arn: str, aws: AwsDouble) -> None:
        start()
        aws.faults.fail("GetPublicKey", 500)
        start()  # removals must go on


def on_record() -> dict[str, str]:
    """The places of the keys that are in use."""
    settings = load()
    store = wiring.open_store(settings, exclusive=False)
    with store.unit_of_work(read_only=True) as uow:
        found = uow.authorities.all()
    store.close()
    return {each.role.value: each.place for each in found if each.role is not AuthorityRole.RETIRED}


def test_it_says_nothing_of_the_sealing_keys() -> None:
    start()
    secret = os.environ["PASSPORT_SEALING_KEYS"].partition(":")[2]
    assert all(secret not in finding.line for finding in findings())
