"""`fxgrad completion bash|zsh|fish`: a script that completes subcommands, options, their choices and files,
made from the parser itself."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from fxgrad.cli.output import say

EXAMPLES = """examples:
  fxgrad completion bash > ~/.local/share/bash-completion/completions/fxgrad
  fxgrad completion zsh > "${fpath[1]}/_fxgrad"
  fxgrad completion fish > ~/.config/fish/completions/fxgrad.fish
"""

SHELLS = ("bash", "zsh", "fish")


def add(command: argparse.ArgumentParser) -> None:
    """Which shell."""
    command.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash, zsh or fish")


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """The completion script of a parser with subcommands."""
    if shell == "fish":
        return "\n".join(_fish(parser))
    bash = "\n".join(_bash(parser))
    return f"#compdef fxgrad\nautoload -U +X bashcompinit && bashcompinit\n{bash}" if shell == "zsh" else bash


def run(shell: str, parser: argparse.ArgumentParser) -> int:
    """Print it."""
    say(script(shell, parser))
    return 0


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The subcommands of a parser, by name."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found.update(action.choices)
    return found


def _words(command: argparse.ArgumentParser) -> tuple[list[str], dict[str, list[str]]]:
    """Its options, and for each option (or "" for what stands alone) the words it takes."""
    options: list[str] = []
    choices: dict[str, list[str]] = {}
    for action in command._actions:
        options += action.option_strings
        if action.choices is not None:
            for name in action.option_strings or [""]:
                choices[name] = [str(choice) for choice in action.choices]
    return options, choices


def _bash(parser: argparse.ArgumentParser) -> Iterator[str]:
    commands = commands_of(parser)
    yield "_fxgrad() {"
    yield (
        '  local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" options="" '
        'names=""'
    )
    yield '  case "${COMP_WORDS[1]}:$previous" in'
    for name, command in commands.items():
        for option, choices in _words(command)[1].items():
            if option:
                yield (
                    f'    {name}:{option}) COMPREPLY=($(compgen -W "{" ".join(choices)}" -- "$current")); '
                    "return ;;"
                )
    yield "  esac"
    yield '  case "${COMP_WORDS[1]}" in'
    for name, command in commands.items():
        options, named = _words(command)
        yield f'    {name}) options="{" ".join(options)}" names="{" ".join(named.get("", []))}" ;;'
    yield "  esac"
    yield '  if [ "$COMP_CWORD" -eq 1 ]; then'
    yield f'    COMPREPLY=($(compgen -W "{" ".join([*commands, "--help", "--version"])}" -- "$current"))'
    yield '  elif [[ "$current" == -* ]]; then'
    yield '    COMPREPLY=($(compgen -W "$options" -- "$current"))'
    yield "  else"
    yield '    COMPREPLY=($(compgen -W "$names" -- "$current") $(compgen -f -- "$current"))'
    yield "  fi"
    yield "}"
    yield "complete -o filenames -F _fxgrad fxgrad"


def _fish(parser: argparse.ArgumentParser) -> Iterator[str]:
    commands = commands_of(parser)
    first = "not __fish_seen_subcommand_from " + " ".join(commands)
    for name, command in commands.items():
        about = (command.description or "").rstrip(".").replace("'", "\\'")
        yield f"complete -c fxgrad -n '{first}' -f -a {name} -d '{about}'"
    for name, command in commands.items():
        for action in command._actions:
            words = "".join(
                f" -l {o[2:]}" if o.startswith("--") else f" -s {o[1:]}" for o in action.option_strings
            )
            values = f" -x -a '{' '.join(map(str, action.choices))}'" if action.choices is not None else ""
            if words or values:
                about = (action.help or "").replace("%%", "%").replace("\\", "\\\\").replace("'", "\\'")
                takes = " -r" if action.option_strings and action.nargs != 0 and not values else ""
                yield (
                    f"complete -c fxgrad -n '__fish_seen_subcommand_from {name}'{words}{takes}{values} -d "
                    f"'{about}'"
                )
