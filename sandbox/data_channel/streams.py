"""Streams that lose nothing and repeat nothing: numbered, acknowledged, resent, put in order.

The rules and the figures are those that amazon-ssm-agent and session-manager-plugin have in common.
"""

from __future__ import annotations

from sandbox.data_channel.messages import SYN, Message

# config.go of both.
PIECE = 1024  # bytes of a port in one message
PAUSE = 0.001  # seconds between two reads of a port
RESEND_EVERY = 0.1
FIRST_TIMEOUT, LONGEST_TIMEOUT, GRANULARITY = 0.2, 1.0, 0.01
FIRST_ROUND_TRIP = 0.1
RTT_SHARE, RTTV_SHARE = 1 / 8, 1 / 4


class Outgoing:
    """Numbers one side's messages, and keeps each until it is acknowledged. Not for several threads at once."""

    def __init__(self, kind: str, *, begins_with_syn: bool) -> None:
        self._kind = kind
        self._syn = begins_with_syn
        self._sequence = 0
        self._waiting: dict[int, tuple[bytes, float]] = {}  # the oldest first: packed, and when it was sent last
        self._round_trip, self._variation = FIRST_ROUND_TRIP, 0.0
        self.timeout = FIRST_TIMEOUT

    def __len__(self) -> int:
        return len(self._waiting)

    def make(self, payload: bytes, payload_type: int, now: float) -> bytes:
        """The next message, packed, which is sent at `now` (seconds of a monotonic clock)."""
        flags = SYN if self._syn and self._sequence == 0 else 0
        message = Message(
            kind=self._kind, payload=payload, payload_type=payload_type, sequence=self._sequence, flags=flags
        )
        packed = message.pack()
        self._waiting[self._sequence] = (packed, now)
        self._sequence += 1
        return packed

    def acknowledge(self, sequence: int, now: float) -> None:
        """Keep a message no longer; an unknown number changes nothing."""
        found = self._waiting.pop(sequence, None)
        if found is None:
            return
        took = now - found[1]
        self._variation = (1 - RTTV_SHARE) * self._variation + RTTV_SHARE * abs(self._round_trip - took)
        self._round_trip = (1 - RTT_SHARE) * self._round_trip + RTT_SHARE * took
        self.timeout = min(self._round_trip + max(GRANULARITY, 4 * self._variation), LONGEST_TIMEOUT)

    def overdue(self, now: float) -> bytes | None:
        """The oldest message, to be sent again, once it has waited longer than the timeout."""
        for sequence, (packed, sent) in self._waiting.items():
            if now - sent <= self.timeout:
                return None
            self._waiting[sequence] = (packed, now)
            return packed
        return None


class Incoming:
    """Puts the other side's messages in order, each once."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._early: dict[int, Message] = {}
        self.expected = 0

    def is_next(self, message: Message) -> bool:
        """Whether this is the message that is waited for: it is acknowledged once it is worked off."""
        return message.sequence == self.expected

    def keep(self, message: Message) -> bool:
        """Keep a message that came too early; whether to acknowledge it: not what came before, nor when full."""
        if message.sequence < self.expected or len(self._early) >= self._capacity:
            return False
        self._early[message.sequence] = message
        return True

    def advance(self) -> Message | None:
        """The message that was waited for is worked off: the next one, if it came early."""
        self.expected += 1
        return self._early.pop(self.expected, None)
