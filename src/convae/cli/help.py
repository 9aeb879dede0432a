"""The list of commands in groups, and the example that the help of each shows."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import chain
from typing import Any

from typer.core import TyperGroup

GLOBAL_OPTIONS = {"--quiet", "-q", "--verbose", "-v"}
EXAMPLES = {
    "Train and evaluate": {
        "train": "convae train mnist training.epochs=1",
        "eval": "convae eval mnist",
        "compare": "convae compare mnist fast",
        "report": "convae report latest",
        "runs": "convae runs --json",
    },
    "Use": {
        "predict": "convae predict pretrained:denoise photographs --as-digit",
        "sample": "convae sample pretrained:generate -n 64 --seed 0",
        "export": "convae export latest --format onnx",
        "demo": "convae demo pretrained:mnist --open",
        "pretrained": "convae pretrained",
    },
    "Understand": {
        "inspect": "convae inspect mnist model.encoder.0.strides=2",
        "size": "convae size --from 13 --to 25",
        "explain": 'convae explain --input "1 2; 3 4" --kernel "0 1; 2 3" --stride 2',
        "explain inverse": "convae explain inverse --stride 2",
        "explain overlap": "convae explain overlap mnist",
        "explain checkerboard": "convae explain checkerboard --out checkerboard.png",
        "explain upscale": "convae explain upscale --factor 4",
        "explain page": "convae explain page --out explain.html",
    },
    "Scale": {
        "sweep": "convae sweep mnist sweep data.subset=6000",
        "launch": "convae launch -n 2 -- train mnist",
        "cache": "convae cache list",
        "cache build": "convae cache build photographs",
        "cache list": "convae cache list --json",
        "cache verify": "convae cache verify",
        "cache clear": "convae cache clear photographs",
    },
    "Set up": {
        "configs": "convae configs",
        "init": "convae init images my-images",
        "config": "convae config fast training.epochs=3",
        "doctor": "convae doctor mnist runtime.device=gpu",
    },
}


class Commands(TyperGroup):
    """The commands in the groups and the order of `EXAMPLES`."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for panel, examples in EXAMPLES.items():
            for words, example in examples.items():
                name, _, below = words.partition(" ")
                command: Any = self.commands[name]
                if below:
                    command = command.commands[below]
                else:
                    self.commands[name] = self.commands.pop(name)  # in this order
                    command.rich_help_panel = panel
                command.epilog = f"Example: {example}"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the line; --quiet and --verbose may be anywhere before a `--`.

        `--resume=RUN` is --resume and RUN, although --resume is a flag.
        """
        end = args.index("--") if "--" in args else len(args)
        split = [w.split("=", 1) if w.startswith("--resume=") else [w] for w in args[:end]]
        first = sorted(chain(*split), key=lambda word: word not in GLOBAL_OPTIONS)
        _draw_help(self.commands)
        return super().parse_args(ctx, [*first, *args[end:]])

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help of all commands."""
        _draw_help({"convae": self})
        super().format_help(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the groups of commands as plain text."""
        width = max(map(len, self.commands))
        for panel in EXAMPLES:
            rows = [
                (name.ljust(width), command.get_short_help_str(formatter.width - width - 6))
                for name, command in self.commands.items()
                if getattr(command, "rich_help_panel", None) == panel
            ]
            with formatter.section(panel):
                formatter.write_dl(rows)


def _draw_help(commands: Mapping[str, Any]) -> None:
    """Let the help of commands have boxes and colors on a terminal, and be plain elsewhere."""
    for command in commands.values():
        command.rich_markup_mode = "markdown" if sys.stdout.isatty() else None
        _draw_help(getattr(command, "commands", {}))
