"""The memory of earlier questions and replies: for a new ledger, and for servers of text."""

from copy import copy
from dataclasses import dataclass

from .formats import AnsweredCall, ChatContext, Message
from .formats.layout import tagged_result
from .ledger import Ledger, Span
from .policy import Policy
from .trajectory import FinishReason, Trajectory, Turn

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
    """The questions and replies of one trajectory as messages, next to its ledgers.

    As long as it goes, a later question is appended to the ledger that is open, and these messages
    are not needed. A template that strips earlier thinking, or a context that is full, starts the
    trajectory's next ledger from them.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.messages: list[Message] = []
        self._left_out = 0  # of them, the oldest that the open ledger has no room for
        self._open = Message("user", ""), 0, 0  # the question, its first turn, its first token
        self._before = 0  # messages before that question

    def fork(self) -> "History":
        """A copy, as of when the question that is open was asked."""
        child = copy(self)
        child.messages = self.messages[: self._before]
        return child

    def open(self, question: str, trajectory: Trajectory) -> int:
        """Write a question into the open ledger, or into a new one with the messages that fit.

        Returns how many of the oldest messages had to be left out.
        """
        spans = self._follow_up(question, trajectory) if trajectory.ledgers else None
        asked = Message("user", question), len(trajectory.turns)
        self._before = len(self.messages)
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
        self._left_out = len(self.messages) - len(messages)
        return self._left_out

    def conversation(self, trajectory: Trajectory, *, as_text: bool = False) -> ChatContext:
        """The context of the question that is open as messages, with calls as data.

        It says what the ledger says; control tokens in it are broken up, as there. `as_text`, for
        servers that take no tools: the system message explains them, calls stay in the text of
        replies, and results are messages of the user.
        """
        policy, ledger = self._policy, trajectory.ledger
        schemas = () if as_text else tuple(policy.encoder.schemas)
        asked, first_turn, first_token = self._open
        messages = [*self.messages[self._left_out :], asked]
        begun = ledger.ids[first_token:]
        before = len(messages)
        if not policy.format.inline:
            *earlier, last = trajectory.turns[first_turn:]
            messages += (said for turn in earlier for said in self._said(trajectory, turn))
            begun = ledger.ids[last.start : last.stop]
        chat: list[Message] = []
        escaped = policy.encoder.escaped(messages, tells_tools=as_text)
        before += len(escaped) - len(messages)  # a system message may have come to its head
        for at, message in enumerate(escaped):
            if message.role == "tool" and chat:
                said = chat[-1].content if at > before else ""
                results = message.results or (message.content,)
                chat[-1:] = self._with_calls(chat[-1], results, said, as_text=not schemas)
            else:
                chat.append(message)
        return ChatContext(tuple(chat), schemas, policy.engine.tokenizer.decode(begun))

    def _with_calls(
        self, reply: Message, results: tuple[str, ...], said: str, *, as_text: bool
    ) -> list[Message]:
        """A reply with its calls as data; `as_text`, or if one of them can't be read, as text
        followed by the results.
        """
        tools = tuple(self._policy.tools.values())
        parsed = self._policy.format.parse(reply.content, FinishReason.EOS, tools)
        readable = len(parsed.calls) == len(results) and all(call.tool for call in parsed.calls)
        if as_text or not readable:
            answer = Message("user", "\n".join(map(tagged_result, results)))
            return [Message(reply.role, reply.content, said=said), answer]
        calls = (
            AnsweredCall(call.tool, call.written, result, call.id)
            for call, result in zip(parsed.calls, results, strict=True)
        )
        return [Message("assistant", parsed.text or "", calls=tuple(calls), said=said)]

    def _said(self, trajectory: Trajectory, turn: Turn) -> list[Message]:
        """A turn as messages: what the policy said, and what came back."""
        format, tokenizer = self._policy.format, self._policy.engine.tokenizer
        reply = Message("assistant", trajectory.text(turn, tokenizer))
        if not turn.calls:
            return [reply]
        role = "assistant" if format.inline else "tool"
        results = [call.output for call in turn.calls]
        results[-1] += trajectory.notice(turn, tokenizer)
        return [reply, Message(role, format.render(turn.calls), tuple(results))]

    def remember(
        self, question: str, trajectory: Trajectory, first_turn: int, end: int | None = None
    ) -> None:
        """Keep a question and the turns that answered it, from `first_turn` on, up to `end`."""
        self.messages.append(Message("user", question))
        for turn in trajectory.turns[first_turn:end]:
            for message in self._said(trajectory, turn):
                last = self.messages[-1]
                if last.role == message.role == "assistant":  # pieces of one become one
                    self.messages[-1] = Message("assistant", last.content + message.content)
                else:
                    self.messages.append(message)

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
        return length - min(self._policy.limits.max_tokens, length // 4)
