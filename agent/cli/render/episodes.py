"""Episodes as text: who wrote what, what is trained, how it ended."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ....rollout.ledger import Ledger, Source, Span
from ....rollout.tokenizer import Tokenizer
from ....rollout.trajectory import Episode, StopReason, Trajectory
from ....rollout.tree.figures import design_effect, tree_figures
from .rows import print_rows
from .terminal import printable

__all__ = ["print_episode", "print_stats", "summary"]

_STYLES = {
    Source.PROMPT: "dim",
    Source.POLICY: "",
    Source.TOOL: "green",
    Source.HOST: "yellow",
}
_GOOD = (StopReason.ANSWERED,)


def summary(episode: Episode) -> dict[str, Any]:
    """An episode without its tokens, as `show --json` prints it."""
    trajectories = episode.trajectories
    return {
        "id": episode.id,
        "group": episode.group,
        "sample": episode.sample,
        "question": episode.task.question,
        "gold": episode.task.answer,
        "answer": episode.answer,
        "stop": episode.stop.value if episode.stop else None,
        "rewards": episode.rewards,
        "error": episode.error,
        "model": trajectories[-1].model if trajectories else None,
        "format": trajectories[-1].format if trajectories else None,
        "turns": sum(len(one.own_turns) for one in trajectories),
        "calls": _calls(trajectories),
        "tokens": _counts(trajectories),
        "seconds": round(episode.seconds, 3),
        "seed": episode.seed,
        **({"tree": tree_figures(trajectories)} if _is_tree(episode) else {}),
    }


def _is_tree(episode: Episode) -> bool:
    return any(one.branch is not None for one in episode.trajectories)


def _calls(trajectories: list[Trajectory]) -> int:
    return sum(len(turn.calls) for one in trajectories for turn in one.own_turns)


def _counts(trajectories: list[Trajectory]) -> dict[str, int]:
    """Tokens by source, and those that are trained; what leaves of a tree share counts once."""
    counts = {source.value: 0 for source in Source} | {"trained": 0}
    for trajectory in trajectories:
        for span in trajectory.own_spans:
            counts[span.source.value] += len(span)
            counts["trained"] += len(span) if span.weight and trajectory.token_exact else 0
    return counts


def print_episode(
    console: Console, episode: Episode, tokenizer: Tokenizer | None, *, ids: bool = False
) -> None:
    """One episode: a head, then each span with its source, or, with `ids`, each token."""
    _print_head(console, episode)
    others = [one for one in episode.trajectories if one.branch is None]
    if _is_tree(episode):
        _print_tree(console, episode, tokenizer, ids=ids)
    for number, trajectory in enumerate(others):
        if len(others) > 1:
            who = f"trajectory {number} of {trajectory.model}{_speaker(trajectory)}"
            console.out(who, style="bold")
        for turn_line in _turns(trajectory):
            console.out(turn_line, style="dim")
        for at, ledger in enumerate(trajectory.ledgers):
            if len(trajectory.ledgers) > 1:
                console.out(f"ledger {at}", style="bold")
            _print_spans(console, ledger, tokenizer, ids=ids, trained=trajectory.token_exact)
    console.out("")


def _print_tree(
    console: Console, episode: Episode, tokenizer: Tokenizer | None, *, ids: bool
) -> None:
    """The leaves, each from where it left another one: what they share stands once, above them."""
    console.out(_tree_line([episode]), style="dim")
    leaves = {leaf.branch.name: leaf for leaf in episode.trajectories if leaf.branch is not None}
    left: defaultdict[str | None, list[tuple[int, str]]] = defaultdict(list)
    for name, leaf in leaves.items():
        if (branch := leaf.branch) is not None:
            before = sum(map(len, leaf.ledgers[: branch.ledger]))
            parent = branch.parent if branch.parent in leaves else None
            left[parent].append((before + branch.tokens, name))
    roots = sorted(name for _, name in left.pop(None))
    begun = [leaves[name].ledgers[0] for name in roots if leaves[name].ledgers]
    prompt = begun[0].head(begun[0].prompt_length) if begun else Ledger()
    if any(ledger.head(len(prompt)) != prompt for ledger in begun):
        prompt = Ledger()
    _print_spans(console, prompt, tokenizer, ids=ids)
    waiting = [(len(prompt), name, 0, True) for name in reversed(roots)]
    while waiting:  # not recursive: a log may hold any depth
        start, name, depth, begins = waiting.pop()
        leaf, bars = leaves[name], "│ " * depth
        if begins:
            console.out(f"{bars}┌ {_leaf_line(leaf, leaf is episode.trajectory)}", style="bold")
            for turn_line in _turns(leaf):
                console.out(f"{bars}│ {turn_line}", style="dim")
        whole = Ledger([span for ledger in leaf.ledgers for span in ledger])
        stop = min((place for place, _ in left[name]), default=len(whole))
        part = Ledger(whole.head(stop).tail(start))
        trained = leaf.token_exact
        _print_spans(
            console, part, tokenizer, ids=ids, place=start, trained=trained, bars=f"{bars}│ "
        )
        if left[name]:
            waiting.append((stop, name, depth, False))
            here = [child for place, child in left[name] if place == stop]
            waiting += [(stop, child, depth + 1, True) for child in reversed(here)]
            left[name] = [each for each in left[name] if each[0] != stop]


def _leaf_line(leaf: Trajectory, chosen: bool) -> str:
    branch = leaf.branch
    assert branch is not None
    parts = [leaf.stop.value if leaf.stop else "not finished"]
    if leaf.answer is not None:
        parts.append(leaf.answer)
    parts.append(f"weight {branch.weight:.3g}")
    if branch.replayed:
        changed = f" ({branch.changed} with another result)" if branch.changed else ""
        parts.append(f"{_number(branch.replayed, 'call')} run again{changed}")
    if chosen:
        parts.append("chosen")
    return printable(f"leaf {branch.name}: {', '.join(parts)}")


def _tree_line(episodes: Iterable[Episode]) -> str:
    """The figures of trees, in one line."""
    trees = [episode for episode in episodes if _is_tree(episode)]
    counted = [tree_figures(episode.trajectories) for episode in trees]
    total = {name: sum(each[name] for each in counted) for name in counted[0]}
    parts = [
        f"{_number(len(trees), 'tree')}: {_number(total['leaves'], 'leaf')} of "
        f"{_number(total['roots'], 'root')}",
        f"{total['sampled']} tokens sampled, {total['prefilled']} prefilled, "
        f"{total['shared']} shared",
        f"{_number(total['calls'], 'call')} run, {total['shared_calls']} shared",
    ]
    if total["replayed"]:
        parts.append(f"{total['replayed']} run again ({total['changed']} with another result)")
    if (effect := design_effect(trees)) is not None:
        parts.append(f"design effect {effect:.2f}")
    return " · ".join(parts)


def _number(count: int, noun: str) -> str:
    return f"{count} {noun if count == 1 else {'leaf': 'leaves'}.get(noun, noun + 's')}"


def _speaker(trajectory: Trajectory) -> str:
    """The role, name and round of the team member that speaks, or "" without a team's role."""
    if trajectory.team is None:
        return ""
    speaker = trajectory.team.speaker
    return printable(f": {speaker.role} {speaker.name}, round {speaker.round + 1}")


def _print_head(console: Console, episode: Episode) -> None:
    stop = episode.stop
    head = Text(f"── {printable(episode.id)}  ", "bold")
    head.append(stop.value if stop else "not finished", "green" if stop in _GOOD else "red")
    if episode.answer is not None:
        head.append(f"  {printable(episode.answer)}", "bold")
    for name, value in episode.rewards.items():
        head.append(f"  {printable(name)} {value:g}", "green" if value > 0 else "red")
    console.print(head, soft_wrap=True)
    if episode.error:
        console.out(printable(episode.error), style="red")
    counts = _counts(episode.trajectories)
    tools = sum(turn.tool_seconds for one in episode.trajectories for turn in one.turns)
    parts = [
        *dict.fromkeys(
            f"{printable(t.model)}, {printable(t.format)}" for t in episode.trajectories
        ),
        f"{counts['policy']} tokens sampled, {counts['trained']} trained",
        f"{episode.seconds:.2f} s (tools {tools:.2f} s)",
    ]
    if episode.seed is not None:
        parts.append(f"seed {episode.seed}")
    console.out(" · ".join(parts), style="dim")


def _turns(trajectory: Trajectory) -> Iterator[str]:
    shared = len(trajectory.turns) - len(trajectory.own_turns)
    for number, turn in enumerate(trajectory.own_turns, shared + 1):
        calls = ", ".join(
            f"{printable(call.tool)} {call.seconds:.2f} s{f' ({call.error})' if call.error else ''}"
            for call in turn.calls
        )
        forged = ", wrote tool output itself" if turn.forged else ""
        yield (
            f"turn {number}: {turn.stop - turn.start} tokens in {turn.seconds:.2f} s "
            f"({turn.finish.value}){forged}" + (f", then {calls}" if calls else "")
        )


def _print_spans(
    console: Console,
    ledger: Ledger,
    tokenizer: Tokenizer | None,
    *,
    ids: bool,
    place: int = 0,
    trained: bool = True,
    bars: str = "",
) -> None:
    """Each span, or each token, of which the first is at `place`."""
    if ids:
        _print_tokens(console, ledger, tokenizer, place)
        return
    for span in ledger:
        _print_span(console, span, tokenizer, trained=trained, bars=bars)


def _print_span(
    console: Console, span: Span, tokenizer: Tokenizer | None, *, trained: bool, bars: str = ""
) -> None:
    """The text of a span beside its source, its length and, for the policy's, its loss weight.

    What the policy wrote and is not trained on is underlined.
    """
    weight = span.weight if trained else 0.0
    style, mark = _STYLES[span.source], ""
    if span.source is Source.POLICY:
        style = "bold" if weight else "underline"
        mark = "" if weight == 1 else f"*{weight:g}"
    text = str(span.ids.tolist()) if tokenizer is None else tokenizer.decode(span.ids)
    label = f"{bars}{span.source.value:<6} {len(span):>5} {mark:<4}│ "
    lines = [Text(line, style) for line in printable(text).removesuffix("\n").split("\n")]
    if console.is_terminal:  # elsewhere a line stays a line
        width = max(20, console.width - len(label))
        lines = [row for line in lines for row in line.wrap(console, width) or [line]]
    for number, line in enumerate(lines):
        rest = bars + " " * (len(label) - len(bars) - 2) + "│ "
        row = Text(rest if number else label, "dim")
        console.print(row.append_text(line), soft_wrap=True)


def _print_tokens(
    console: Console, ledger: Ledger, tokenizer: Tokenizer | None, place: int
) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("place", "id", "token", "source", "logprob", "raw", "weight", "version"):
        table.add_column(name, justify="left" if name in ("token", "source") else "right")
    for span in ledger:
        for offset, id in enumerate(span.ids.tolist()):
            token = "" if tokenizer is None else repr(printable(tokenizer.decode([id])))
            table.add_row(
                *(str(place), str(id), escape(token), span.source.value),
                _at(span.logprobs, offset),
                _at(span.raw_logprobs, offset),
                f"{span.weight:g}" if span.source is Source.POLICY else "",
                "" if span.version is None else str(span.version),
                style=_STYLES[span.source],
            )
            place += 1
    console.print(table)


def _at(values: Any, offset: int) -> str:
    return "" if values is None else f"{float(values[offset]):.4f}"


def print_stats(console: Console, episodes: Iterable[Episode]) -> None:
    """A table with one line for each group: how its episodes ended, and means of the rest."""
    groups: dict[str, list[Episode]] = {}
    for episode in episodes:
        groups.setdefault(episode.group, []).append(episode)
    everything = [episode for group in groups.values() for episode in group]
    rewards = sorted({name for group in groups.values() for one in group for name in one.rewards})
    heads = ("group", "n", "ended", *rewards, "tokens", "calls", "seconds")
    rows = [_stats_row(group, rewards) for group in groups.values()]
    if len(groups) > 1:
        rows.append(["all", *_stats_row(everything, rewards)[1:]])
    right = {*heads} - {"group", "ended"}
    print_rows(console, heads, rows, right=right, heads_for_programs=True)
    if any(map(_is_tree, everything)):
        console.out(_tree_line(everything))


def _stats_row(group: list[Episode], rewards: list[str]) -> list[str]:
    stops: dict[str, int] = {}
    for episode in group:
        name = episode.stop.value if episode.stop else "not finished"
        stops[name] = stops.get(name, 0) + 1
    given = [[one.rewards[name] for one in group if name in one.rewards] for name in rewards]
    return [
        group[0].group,
        str(len(group)),
        ", ".join(f"{count} {name}" for name, count in sorted(stops.items())),
        *(_mean(values, 3) for values in given),
        _mean([_counts(one.trajectories)["policy"] for one in group], 1),
        _mean([_calls(one.trajectories) for one in group], 1),
        _mean([one.seconds for one in group], 2),
    ]


def _mean(values: list[float] | list[int], digits: int) -> str:
    return f"{sum(values) / len(values):.{digits}f}" if values else ""
