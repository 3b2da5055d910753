"""The memory of earlier questions and replies, for a later question that opens a new ledger."""

from dataclasses import dataclass

from .formats import AnsweredCall, Conversation, Message
from .formats.layout import tagged_result
from .ledger import Ledger, Source, Span
from .policy import Policy
from .trajectory import Trajectory, Turn

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
        self._left_out: dict[int, int] = {}  # by ledger: how many of the oldest messages
        self._answered: dict[int, tuple[int, range]] = {}  # by a question's place: its end, turns
        self._open = Message("user", ""), 0, 0  # the question, its first turn, its first token

    def open(self, question: str, trajectory: Trajectory) -> int:
        """Write a question into the open ledger, or into a new one with the messages that fit.

        Returns how many of the oldest messages had to be left out.
        """
        spans = self._follow_up(question, trajectory) if trajectory.ledgers else None
        asked = Message("user", question), len(trajectory.turns)
        if spans is not None:
            for span in spans:
                trajectory.ledger.append(span)
            self._open = *asked, len(trajectory.ledger)
            return 0
        messages, encoder = self.messages, self._policy.encoder
        spans = encoder.prompt(question, messages)
        while messages and sum(map(len, spans)) > self._room():
            messages = messages[1:]
            spans = encoder.prompt(question, messages)
        trajectory.ledgers.append(Ledger(spans))
        self._open = *asked, len(trajectory.ledger)
        left_out = len(self.messages) - len(messages)
        self._left_out[len(trajectory.ledgers) - 1] = left_out
        return left_out

    def conversation(self, trajectory: Trajectory) -> Conversation:
        """The context of the question that is open as messages, with calls as data.

        It says what the ledger says. Control tokens in it are broken up, as there.
        """
        encoder, tokenizer = self._policy.encoder, self._policy.engine.tokenizer
        asked, first_turn, first_token = self._open
        messages: list[Message] = []
        at = self._left_out.get(len(trajectory.ledgers) - 1, 0)
        for start, (end, _) in self._answered.items():
            if start < at < end:  # the question itself was left out
                at = end
        while at < len(self.messages):
            end, turns = self._answered.get(at, (at + 1, range(0)))
            messages.append(self.messages[at])
            for number in turns:
                messages += self._said(trajectory, trajectory.turns[number])
            at = end
        messages.append(asked)
        ids = trajectory.ledger.ids[first_token:]
        if not self._policy.format.inline:
            *earlier, last = trajectory.turns[first_turn:]
            for turn in earlier:
                messages += self._said(trajectory, turn)
            ids = trajectory.ledger.ids[last.start : last.stop]
        begun = tokenizer.decode(ids)
        return Conversation(tuple(encoder.escaped(messages)), tuple(encoder.schemas), begun)

    def _said(self, trajectory: Trajectory, turn: Turn) -> list[Message]:
        """A turn of a format whose results are messages: an assistant's message, with its calls as
        data if they could be read, else as text with the results behind it.
        """
        format, tokenizer = self._policy.format, self._policy.engine.tokenizer
        text = trajectory.text(turn, tokenizer)
        if not turn.calls:
            return [Message("assistant", text)]
        results = [call.output for call in turn.calls]
        position = 0
        for span in trajectory.ledgers[turn.ledger]:  # a notice, up to the next turn
            if position >= turn.stop and span.source is Source.POLICY:
                break
            if position >= turn.stop and span.source is Source.HOST:
                results[-1] += tokenizer.decode(span.ids)
            position += len(span)
        parsed = format.parse(text, turn.finish, tuple(self._policy.tools.values()))
        if len(parsed.calls) != len(results) or not all(call.tool for call in parsed.calls):
            given = "\n".join(map(tagged_result, results))
            return [Message("assistant", text), Message("user", given)]
        calls = (
            AnsweredCall(call.tool, call.written, result)
            for call, result in zip(parsed.calls, results, strict=True)
        )
        return [Message("assistant", parsed.text, tuple(calls))]

    def remember(
        self, question: str, trajectory: Trajectory, first_turn: int, end: int | None = None
    ) -> None:
        """Keep a question and the turns that answered it, from `first_turn` on, up to `end`."""
        start = len(self.messages)
        self.messages.append(Message("user", question))
        for turn in trajectory.turns[first_turn:end]:
            said = trajectory.text(turn, self._policy.engine.tokenizer)
            self._add(Message("assistant", said))
            if turn.calls:
                role = "assistant" if self._policy.format.inline else "tool"
                self._add(Message(role, self._policy.format.render(turn.calls)))
        if not self._policy.format.inline:
            turns = range(len(trajectory.turns))[first_turn:end]
            self._answered[start] = len(self.messages), turns

    def mark(self, trajectory: Trajectory) -> Mark:
        """The trajectory's current position, between two questions."""
        spans = len(trajectory.ledger.spans) if trajectory.ledgers else 0
        counts = len(trajectory.ledgers), spans, len(trajectory.turns), len(self.messages)
        return Mark(*counts)

    def restore(self, trajectory: Trajectory, mark: Mark) -> None:
        """Take back everything since then, as if it had not been said."""
        del trajectory.ledgers[mark.ledgers :], trajectory.turns[mark.turns :]
        del self.messages[mark.messages :]
        self._answered = {
            start: (end, turns)
            for start, (end, turns) in self._answered.items()
            if end <= mark.messages
        }
        if trajectory.ledgers:
            trajectory.ledgers[-1] = Ledger(trajectory.ledger.spans[: mark.spans])
        trajectory.stop = trajectory.answer = None

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
