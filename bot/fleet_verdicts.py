"""Whether a server is ready for Passport's users, and if not, why and what to do: a sentence for each reason."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from access.model import AccessRequest, Grant, GrantState, Server
from provisioning.framing import Present, Probed
from provisioning.probing import Heard
from provisioning.windows_probe import ProbedWindows

MOST_SKEW = timedelta(minutes=2)  # the end of an access is late by as much as the server's clock is
LEAST_FREE_KB = 20 * 1024  # a user, their home and a drop-in take less; what they do there takes more
_END_SLACK = timedelta(minutes=2)

_SSHD = {
    "stopped": "Its sshd is not running. Its owner has to start it.",
    "broken": "Its sshd does not accept its own settings. Its owner has to mend them: sshd -t names the line.",
    "absent": "It has no sshd. Its owner has to install one.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerFinding:
    """One server, and what keeps Passport's users from it or should not be there; ready without problems."""

    server: Server
    problems: tuple[str, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Whether it could be opened now, and nothing on it needs looking after."""
        return not self.problems

    def as_json(self) -> dict[str, object]:
        """For machines."""
        return {
            "account": self.server.account,
            "region": self.server.region,
            "instance_id": self.server.instance_id,
            "name": self.server.name,
            "platform": self.server.platform,
            "ready": self.is_ready,
            "problems": list(self.problems),
        }

    def rows(self) -> list[tuple[str, str, str, str]]:
        """For people: a row for each problem, of which the first names the server."""
        name = _printable(self.server.name)
        where = f"{self.server.account} {self.server.region}"
        first, *others = self.problems or ("",)
        mark = "ready" if self.is_ready else "NOT READY"
        return [
            (f"{name} ({self.server.instance_id})", where, mark, _printable(first)),
            *(("", "", "", _printable(other)) for other in others),
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What the database knows of a user that a server has: the request, and its grant for that very server."""

    request: AccessRequest | None = None
    grant: Grant | None = None

    @property
    def is_over(self) -> bool:
        """Whether the user was removed, as far as the database knows."""
        return self.grant is not None and self.grant.state is GrantState.REMOVED


def judge(heard: Heard, known: Sequence[Known]) -> ServerFinding:
    """The finding for what a server said; ``known`` goes with the users that it named."""
    if not isinstance(heard.said, Probed | ProbedWindows):
        sentence = getattr(heard.said, "sentence", "") or getattr(heard.said, "reason", "")
        return ServerFinding(server=heard.server, problems=(sentence,))
    probed = heard.said
    problems = [
        *(
            sentence
            for user, knows in zip(probed.users, known, strict=True)
            for sentence in _left_over(user, knows, heard)
        ),
        *_uncounted(probed),
        *_clock(heard),
        *(_windows(probed) if isinstance(probed, ProbedWindows) else (*_login(probed), *_disk(probed))),
    ]
    return ServerFinding(server=heard.server, problems=tuple(problems))


def _left_over(user: Present, known: Known, heard: Heard) -> Iterator[str]:
    """Loud: somebody has access, or could get it, that nobody should have."""
    whose = f"LEFT OVER: the user {user.user_name} of {user.request_id}"
    mend = "Look who made it; the RemoveUser document removes it."
    if known.request is None:
        yield f"{whose}, a request that Passport's database does not know. {mend}"
        return
    if known.grant is None:
        yield f"{whose}, which was never for this server. {mend}"
        return
    if known.is_over:
        yield f"{whose}, which Passport has on record as removed. {mend}"
    if user.not_after < heard.asked_at - _END_SLACK:
        yield f"{whose} is past its end, {_time(user.not_after)}: the server's own timer did not remove it. {mend}"
    ends = known.request.expires_at
    if ends and user.not_after > ends + _END_SLACK:
        yield f"{whose} ends {_time(user.not_after)} on the server, and was approved until {_time(ends)}. {mend}"


def _uncounted(probed: Probed | ProbedWindows) -> Iterator[str]:
    more = probed.user_count - len(probed.users)
    if more > 0:
        yield f"It has {more} more of Passport's users, which it did not name: look into Passport's records there."


def _clock(heard: Heard) -> Iterator[str]:
    """Its clock was read between question and answer; what lies outside of that is wrong by at least so much."""
    assert isinstance(heard.said, Probed | ProbedWindows)  # noqa: S101 - judge looks before
    behind, ahead = heard.asked_at - heard.said.server_time, heard.said.server_time - heard.heard_at
    skew, way = (behind, "behind") if behind > ahead else (ahead, "ahead")
    if skew > MOST_SKEW:
        late = "ends come late" if way == "behind" else "ends come early"
        yield f"Its clock is {skew.total_seconds() / 60:.0f} min {way}, so {late}. Let NTP set it."


def _login(probed: Probed) -> Iterator[str]:
    if probed.sshd in _SSHD:
        yield _SSHD[probed.sshd]
    if probed.denies:
        yield f"Its sshd denies Passport's users by DenyUsers or DenyGroups {probed.denies}. Except pp-* there."
    if probed.no_logins:
        yield f"{probed.no_logins} keeps everybody out. Its owner has to remove it."
    if probed.timer == "none":
        yield "Neither systemd nor cron runs, so it could not end an access by itself. Its owner has to start one."
    if probed.missing:
        yield f"It lacks {', '.join(probed.missing)}. Its owner has to install that."
    if not probed.firewalls:
        yield (
            "It has no nft, iptables or ip6tables to keep users from the instance metadata. Its owner has to install "
            "one, or a rule has to say metadata = true."
        )


def _windows(probed: ProbedWindows) -> Iterator[str]:
    if probed.domain_controller:
        yield "It is a domain controller: a user made on it would be a user of the whole domain, so I make none there."
    if not probed.remote_desktop:
        yield "It does not let anybody in by Remote Desktop. Its owner has to switch that on."
    if not probed.has_scheduler:
        yield "Its Task Scheduler does not run, so it could not end an access by itself. Its owner has to start it."


def _disk(probed: Probed) -> Iterator[str]:
    if probed.read_only:
        yield f"{', '.join(probed.read_only)} can only be read, so no user can be made. Mount it for writing."
    for folder, free in probed.free_kb.items():
        if free < LEAST_FREE_KB:
            yield f"{folder} has {free // 1024} MB free, and I need {LEAST_FREE_KB // 1024}. Make room there."


def _time(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC"


def _printable(text: str) -> str:
    """What a tag or a server says must not move the cursor of a terminal, nor begin a line."""
    return "".join(each if each.isprintable() else "?" for each in text)
