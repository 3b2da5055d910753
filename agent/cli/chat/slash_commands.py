"""The slash commands of a chat."""

from collections.abc import Awaitable, Callable

from ....rollout.episode_log import EpisodeLog
from ....tools.errors import DataError, InterlaceError, UsageError
from ...approval import Rule
from ..approvals import left_line, read_numbers
from .session import ChatSession

__all__ = ["COMMANDS", "run_command"]

_KEYS = """\
Alt-Enter, or a backslash at the end of a line, continues in the next line; Ctrl-R searches the \
earlier questions. Ctrl-C stops an answer; what was said until then stays in the conversation. \
Ctrl-D leaves, and so does Ctrl-C twice."""


async def run_command(chat: ChatSession, line: str) -> bool:
    """Run a line that begins with a slash. Returns True if it ends the chat."""
    word, _, rest = line.partition(" ")
    if word in ("/quit", "/exit"):
        return True
    if word not in COMMANDS:
        chat.say(f"[unknown command {word}; /help lists all]", "notice")
    else:
        try:
            await COMMANDS[word][0](chat, rest.strip())
        except DataError as error:
            chat.say(f"[{error}]", "error")
    return False


async def _help(chat: ChatSession, rest: str) -> None:
    heads = {word: f"{word} {usage}".rstrip() for word, (_, usage, _) in COMMANDS.items()}
    wide = max(map(len, heads.values()))
    for word, (_, _, what) in COMMANDS.items():
        chat.say(f"{heads[word]:{wide}}  {what}", "dim")
    chat.say(_KEYS, "dim")


async def _reset(chat: ChatSession, rest: str) -> None:
    await chat.forget()
    what = "what was asked" if chat.alone else "the conversation and the state of the tools"
    chat.say(f"[forgotten: {what}]", "notice")


async def _tools(chat: ChatSession, rest: str) -> None:
    policy = await chat.agent.policy()
    for tool in policy.tools.values():
        chat.say(f"{tool.name}: {tool.description}", "dim")
    chat.say(f"format: {policy.format.name}", "dim")


async def _model(chat: ChatSession, rest: str) -> None:
    if not rest:
        chat.say(f"model: {chat.agent.model}", "dim")
        return
    try:
        await chat.change_model(rest)
        read = "" if chat.alone else "; it has read what was said, its tools begin anew"
        chat.say(f"[{rest} answers from now on{read}]", "notice")
    except InterlaceError as error:
        chat.say(f"[{error}]", "error")


async def _undo(chat: ChatSession, rest: str) -> None:
    gone = chat.undo()
    if gone is None:
        chat.say("[there is nothing to take back]", "notice")
        return
    question, by_team = gone
    stays = "" if by_team else "; the state of the tools stays"
    chat.say(f"[taken back: {question}{stays}]", "notice")


async def _retry(chat: ChatSession, rest: str) -> None:
    gone = chat.undo()
    if gone is None:
        chat.say("[there is nothing to ask again]", "notice")
        return
    question, by_team = gone
    chat.say(f"> {question}", "dim")
    await chat.answer(question, team=by_team)


async def _team(chat: ChatSession, rest: str) -> None:
    if not rest:
        chat.say("[/team needs a question]", "notice")
        return
    try:
        await chat.answer(rest, team=True)
    except InterlaceError as error:
        chat.say(f"[{error}]", "error")


async def _save(chat: ChatSession, rest: str) -> None:
    episodes = chat.episodes
    if not rest or not episodes:
        why = "/save needs a file's name" if not rest else "there is nothing to save yet"
        chat.say(f"[{why}]", "notice")
        return
    with EpisodeLog(rest) as log:
        for episode in episodes:
            log.append(episode)
    chat.say(f"[saved; interlace show {rest}]", "notice")


async def _budget(chat: ChatSession, rest: str) -> None:
    budget = chat.agent.settings.budget
    try:
        if rest:
            budget.allow(**read_numbers(rest))
    except UsageError as error:
        chat.say(f"[{error}]", "notice")
    spent = budget.spent
    calls = f"{spent.calls} call{'' if spent.calls == 1 else 's'}"
    chat.say(f"spent: {spent.tokens} tokens, {calls}, {spent.seconds:.0f} s", "dim")
    chat.say(left_line(budget.left), "dim")


async def _approve(chat: ChatSession, rest: str) -> None:
    try:
        if rest:
            chat.approval.rules.insert(0, Rule.read(rest))
    except UsageError as error:
        chat.say(f"[{error}]", "notice")
    for rule in chat.approval.rules:
        chat.say(f"{rule.verdict} {rule.tool} {rule.pattern}".rstrip(), "dim")


COMMANDS: dict[str, tuple[Callable[[ChatSession, str], Awaitable[None]], str, str]] = {
    "/help": (_help, "", "this list"),
    "/tools": (_tools, "", "the tools and the format"),
    "/model": (_model, "[NAME]", "the model; with a name, another one takes over"),
    "/team": (_team, "QUESTION", "a CEO and its experts answer, outside of the conversation"),
    "/undo": (_undo, "", "take back the last question and its answer"),
    "/retry": (_retry, "", "take back the last answer and ask again"),
    "/save": (_save, "FILE", "add what was said to a log, which `interlace show FILE` reads"),
    "/budget": (_budget, "[tokens=5000]", "what is left; with numbers, that much from now on"),
    "/approve": (_approve, "[RULE]", "which calls are run; with a rule, that one comes first"),
    "/reset": (_reset, "", "forget the conversation and the Python state"),
    "/quit": (_help, "", "leave (Ctrl-D does too)"),
}
"""Each command: what it does, how it is used, and what is told of it."""
