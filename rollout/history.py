"""The memory of earlier questions and replies, for a later question that opens a new ledger."""

from dataclasses import dataclass

from .formats import Message
from .ledger import Ledger, Span
from .policy import Policy
from .trajectory import Trajectory

__all__ = ["History", "Mark"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A point between two questions: how many there were of what only grows.

    `spans` are those of the ledger that was open.
    """

    ledgers: int
    spans: int
    turns: int
    messages: int


class History:
    """The questions and replies of one trajectory as messages, beside its ledgers.

    As long as it goes, a later question is appended to the ledger that is open, and these messages
    are not needed. A template that strips earlier thinking, or a context that is full, starts the
    trajectory's next ledger from them.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.messages: list[Message] = []

    def open(self, question: str, trajectory: Trajectory) -> int:
        """Write a question into the open ledger, or into a new one with the messages that fit.

        Returns how many of the oldest messages had to be left out.
        """
        spans = self._follow_up(question, trajectory) if trajectory.ledgers else None
        if spans is not None:
            for span in spans:
                trajectory.ledger.append(span)
            return 0
        messages, encoder = self.messages, self._policy.encoder
        spans = encoder.prompt(question, messages)
        while messages and sum(map(len, spans)) > self._room():
            messages = messages[1:]
            spans = encoder.prompt(question, messages)
        trajectory.ledgers.append(Ledger(spans))
        return len(self.messages) - len(messages)

    def remember(
        self, question: str, trajectory: Trajectory, first_turn: int, end: int | None = None
    ) -> None:
        """Keep a question and the turns that answered it, from `first_turn` on, up to `end`."""
        self.messages.append(Message("user", question))
        for turn in trajectory.turns[first_turn:end]:
            said = trajectory.text(turn, self._policy.engine.tokenizer)
            self._add(Message("assistant", said))
            if turn.calls:
                role = "assistant" if self._policy.format.inline else "tool"
                self._add(Message(role, self._policy.format.render(turn.calls)))

    def mark(self, trajectory: Trajectory) -> Mark:
        """The trajectory's current position, between two questions."""
        spans = len(trajectory.ledger.spans) if trajectory.ledgers else 0
        counts = len(trajectory.ledgers), spans, len(trajectory.turns), len(self.messages)
        return Mark(*counts)

    def restore(self, trajectory: Trajectory, mark: Mark) -> None:
        """Take back everything since then, as if it had not been said."""
        del trajectory.ledgers[mark.ledgers :], trajectory.turns[mark.turns :]
        del self.messages[mark.messages :]
        if trajectory.ledgers:
            trajectory.ledgers[-1] = Ledger(trajectory.ledger.spans[: mark.spans])
        trajectory.stop = trajectory.answer = trajectory.error = None

    def _follow_up(self, question: str, trajectory: Trajectory) -> list[Span] | None:
        ended = trajectory.ended(self._policy.engine.tokenizer)
        spans = self._policy.encoder.follow_up(question, ended=ended)
        if spans is None or len(trajectory.ledger) + sum(map(len, spans)) > self._room():
            return None
        return spans

    def _room(self) -> int:
        """Tokens of context that a prompt may fill, so that there is room for a reply."""
        length = self._policy.engine.context_length
        return length - min(self._policy.limits.response_tokens, length // 4)

    def _add(self, message: Message) -> None:
        """Append a message; pieces of one assistant message become one."""
        last = self.messages[-1]
        if last.role == message.role == "assistant":
            self.messages[-1] = Message("assistant", last.content + message.content)
        else:
            self.messages.append(message)
