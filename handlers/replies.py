"""What one person is told, and nobody else."""

from dataclasses import dataclass
from typing import Self

from handlers import blocks, mrkdwn
from handlers.blocks import Block


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An ephemeral answer: the sentence is plain text, for notifications and forms; the blocks are what is seen."""

    sentence: str
    blocks: tuple[Block, ...]
    takes_place: bool = False  # of the message whose button was pressed, for everybody who sees that

    @classmethod
    def plain(cls, sentence: str, *more: Block) -> Self:
        """The sentence shown exactly as it is, whatever it holds."""
        return cls(sentence=sentence, blocks=(blocks.sentence(sentence), *more))

    @property
    def body(self) -> Block:
        """As the answer to a command."""
        text = mrkdwn.cut(mrkdwn.escape(self.sentence))
        return {"response_type": "ephemeral", "text": text or " ", "blocks": list(self.blocks)}

    @property
    def beside(self) -> Block:
        """As a post to a response_url, by which the message with the button stays as it is unless this replaces it."""
        return {**self.body, "replace_original": self.takes_place}

    def modal(self, title: str = "Passport") -> Block:
        """As a modal that only says this."""
        return blocks.modal(title, self.blocks)
