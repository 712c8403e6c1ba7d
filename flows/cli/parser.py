"""The parser of commands: every help begins with a sentence and an example, and whoever misspells
something is told what was meant.
"""

import argparse
import difflib
import re
from collections.abc import Iterator
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """A parser whose errors name what is nearest to an option or a choice that it does not know."""

    def error(self, message: str) -> NoReturn:
        """End with status 2 and one sentence, without the lines of usage."""
        if wrong := re.search(r"unrecognized arguments: (\S+)", message):
            # what a command does not know, the parser of all commands reports
            message = f"there is no option or argument {wrong[1]}"
            given, known = wrong[1].partition("=")[0], [*self._options()]
        elif wrong := re.search(r"argument (.+): invalid choice: '(.*)' \(choose", message):
            what = "command" if wrong[1] == "COMMAND" else f"choice for {wrong[1]}:"
            message, given, known = f"there is no {what} {wrong[2]}", wrong[2], self._choices()
        else:
            self.exit(2, f"{self.prog}: {message}: see {self.prog} --help\n")
        near = difflib.get_close_matches(given, known, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"see {self.prog} --help"
        self.exit(2, f"{self.prog}: {message}: {remedy}\n")

    def _options(self) -> Iterator[str]:
        """All options, those of commands too."""
        yield from self._option_string_actions
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    yield from parser._options()

    def _choices(self) -> list[str]:
        return [str(choice) for action in self._actions for choice in action.choices or ()]


class Completion(argparse.Action):
    """An option that prints the script of a shell's completion and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> NoReturn:
        """Print the script for the shell that was named."""
        import shtab

        shell = given[1]
        if shell not in shtab.SUPPORTED_SHELLS:
            known = ", ".join(shtab.SUPPORTED_SHELLS)
            parser.error(f"--print-completion is {shell}, and knows {known}")
        print(shtab.complete(parser, shell))
        parser.exit(0)


def add_command(commands: Any, name: str, sentence: str, *examples: str) -> Parser:
    """Add a command: `sentence` is its line in the list of commands and the beginning of its help,
    before the `examples`, which are printed as they are typed.
    """
    shown = "\n".join(f"  {example}" for example in examples)
    description = f"{sentence[0].upper()}{sentence[1:]}."
    if shown:
        description = f"{description}\n\nexample{'s' * (len(examples) > 1)}:\n{shown}"
    parser: Parser = commands.add_parser(
        name,
        help=sentence,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser
