"""The command `explain`: a transposed convolution of your own numbers, and its effects.

NumPy and matplotlib are imported by the commands that need them.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer import Argument, Option

from convae.cli.options import Json, Overrides
from convae.console import format_shape, suggest
from convae.errors import ConfigError, UnsupportedError
from convae.files import check_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convae.explain.step_figures import View
    from convae.explain.worked_example import Case

explain_app = typer.Typer(
    help="See a transposed convolution with your own numbers.",
    no_args_is_help=False,
    invoke_without_command=True,
)


def _check_pictures(context: typer.Context, names: list[str] | None) -> list[str] | None:
    """Raise ConvaeError for a picture that could not be written, before anything is computed."""
    if names:
        from convae.explain.cell_grid import check_format

        for name in names:
            check_format(name, steps=context.info_name == "explain")
            check_folder(Path(name).parent)
    return names


Out = Annotated[
    list[str] | None,
    Option(
        "--out", metavar="FILE", help="Write a picture: .png or .svg.", callback=_check_pictures
    ),
]
Input = Annotated[str | None, Option("--input", metavar='"1 2; 3 4"', help="The input.")]
Kernel = Annotated[str | None, Option("--kernel", metavar='"0 1; 2 3"', help="The kernel.")]
Strides = Annotated[
    str | None, Option("--stride", "--strides", metavar="S", help="One number, or two: 2,1.")
]
Padding = Annotated[str | None, Option("--padding", metavar="P", help="valid, same, or a number.")]


@explain_app.callback()
def explain(
    context: typer.Context,
    input_: Input = None,
    kernel: Kernel = None,
    stride: Strides = None,
    padding: Padding = None,
    output_padding: Annotated[str | None, Option(metavar="O", help="Less than the stride.")] = None,
    dilation: Annotated[
        str | None,
        Option("--dilation", "--dilation-rate", metavar="D", help="One number, or two: 2,1."),
    ] = None,
    example: Annotated[
        str | None, Option(metavar="NAME", help="Of the article: basic, 1, 2, 3 or 4.")
    ] = None,
    conv: Annotated[bool, Option("--conv", help="Run a convolution.")] = False,
    out: Annotated[
        list[str] | None,
        Option(
            "--out",
            metavar="FILE",
            help="Write a picture: .png, .svg, or .gif in steps.",
            callback=_check_pictures,
        ),
    ] = None,
    view: Annotated[
        str, Option(metavar="VIEW", help="Steps of a .gif: copies, or zeros.")
    ] = "copies",
    verify: Annotated[bool, Option("--verify", help="Compare with the installed Keras.")] = False,
    as_json: Json = False,
) -> None:
    """See a transposed convolution with your own numbers."""
    names = ("input", "kernel", "strides", "padding", "output_padding", "dilation_rate")
    texts = (input_, kernel, stride, padding, output_padding, dilation)
    given = {name: text for name, text in zip(names, texts, strict=True) if text is not None}
    if command := context.invoked_subcommand:
        if given:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise ConfigError(f"{options} must come after {command}")
        return
    if view not in ("copies", "zeros"):
        raise ConfigError(f"--view must be copies or zeros. Received: {view}")
    if example is None and not {"input", "kernel"} & given.keys():
        example = "basic"
    title, case = _case(given, example, conv)
    difference = _keras_difference(case) if verify else None
    if as_json:
        result = case.result()
        facts = {
            "operation": case.operation,
            "input": case.x.tolist(),
            "kernel": case.kernel.tolist(),
            **vars(case.options),
            "output": result.tolist(),
            "output_shape": result.shape,
        }
        facts |= {} if case.is_conv else {"crop": case.crops}
        print(json.dumps(facts | ({"keras_difference": difference} if verify else {})))
    else:
        from convae.explain.worked_example import format_case

        print((f"{title}\n" if title else "") + format_case(case))
        if verify:
            print(f"\nlargest difference to the installed Keras: {difference:g}")
    for name in out or []:
        _draw(case, title, name, cast("View", view))
    steps = "convae explain --example 2 --out steps.gif"
    suggest("convae explain inverse" if out else steps, silent=as_json)


def _case(given: dict[str, str], example: str | None, conv: bool) -> tuple[str | None, Case]:
    """Return an example, the typed numbers, or an example with typed numbers in their place."""
    from convae.explain import worked_example
    from convae.explain.operation import ConvOptions

    title: str | None = None
    values: dict[str, Any] = {"options": ConvOptions()}
    if example is not None:
        if example not in worked_example.EXAMPLES:
            known = ", ".join(worked_example.EXAMPLES)
            raise ConfigError(f"--example must be one of {known}. Received: {example}")
        title, start = worked_example.EXAMPLES[example]
        values = dict(vars(start))
    changes: dict[str, Any] = {}
    for name, text in given.items():
        if name in ("input", "kernel"):
            values["x" if name == "input" else name] = worked_example.parse_matrix(text, name)
        elif name == "padding":
            changes[name] = worked_example.parse_padding(text)
        else:
            least = 0 if name == "output_padding" else 1
            changes[name] = worked_example.parse_pair(text, name, least)
    for key, name in (("x", "--input"), ("kernel", "--kernel")):
        if key not in values:
            raise ConfigError(f'{name} is missing: write it as {name} "1 2; 3 4"')
    values["options"] = ConvOptions(**(vars(values["options"]) | changes))
    if conv:
        values["operation"] = "conv"
    return None if given or conv else title, worked_example.Case(**values)


def _keras_difference(case: Case) -> float:
    """Return the largest difference between our result and the installed Keras'."""
    import numpy as np

    from convae.explain import operation

    try:
        if case.is_conv:
            keras = operation.conv(case.x, case.kernel, case.options, operation.conv_by_keras)
        else:
            method = operation.transpose_by_keras
            keras = operation.conv_transpose(case.x, case.kernel, case.options, method)
    except Exception as error:  # Keras and TensorFlow raise many kinds
        raise UnsupportedError(f"the installed Keras cannot run this here: {error}") from None
    return float(np.abs(keras - case.result()).max())


def _draw(case: Case, title: str | None, name: str, view: View) -> None:
    from convae.explain.cell_grid import write
    from convae.explain.step_figures import frames, panels

    figures = frames(case, title, view) if name.endswith(".gif") else panels(case, title)
    print(write(figures, name), file=sys.stderr)


@explain_app.command()
def inverse(
    input_: Input = None,
    kernel: Kernel = None,
    stride: Strides = None,
    padding: Padding = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Show that the transpose is the adjoint, not the inverse.

    Prints x, Cx, C^T C x and C^+ C x.
    """
    from convae.explain import effects, worked_example
    from convae.explain.operation import ConvOptions

    strides = worked_example.parse_pair(stride or "1", "strides", 1)
    case = effects.adjoint(
        worked_example.parse_matrix(input_ or "0 1 2; 3 4 5; 6 7 8", "input"),
        worked_example.parse_matrix(kernel or "1 2; 2 1", "kernel"),
        ConvOptions(strides, worked_example.parse_padding(padding or "valid")),
    )
    if as_json:
        names = ("x", "cx", "ctcx", "pseudo", "y")
        facts = {name: getattr(case, name).tolist() for name in names}
        print(json.dumps(facts | {"products": case.products, "rank": case.rank}))
    else:
        grids = {"x": case.x, "Cx": case.cx, "C^T C x": case.ctcx, "C^+ C x": case.pseudo}
        blocks = [(name, worked_example.format_grid(grid)) for name, grid in grids.items()]
        first, second = case.products
        print("The transpose of a convolution is not its inverse:\n")
        print(worked_example.join_blocks(blocks))
        print(f"\nC is a {format_shape(case.matrix_shape)} matrix of rank {case.rank}.")
        print(f"It is the adjoint: <Cx, y> = {first:g} = <x, C^T y> = {second:g}, for every y.")
    if out:
        from convae.explain import charts

        _write(charts.adjoint(case), out)
    suggest("convae explain overlap mnist", silent=as_json)


@explain_app.command()
def overlap(
    config: Annotated[
        str | None, Argument(metavar="CONFIG", help="A YAML file; not needed with --run.")
    ] = None,
    overrides: Overrides = None,
    run: Annotated[
        str | None, Option(metavar="RUN", help="Also the spectrum of its reconstructions.")
    ] = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Show how many kernel copies overlap in each decoder layer.

    With --run, also the spectrum of its reconstructions; the pictures are FILE for the maps and
    FILE-spectrum for the spectrum.
    """
    from convae.config.loader import load_config
    from convae.explain import effects
    from convae.layers.summary import ModelSummary

    if config is None and run is None:
        raise ConfigError("which config? For example: convae explain overlap mnist")
    facts: dict[str, Any] = {}
    loaded = load_config(config, overrides or []) if config is not None else None
    if run is not None:
        from convae.explain.trained import validation_sample

        sample = validation_sample(run)
        name, model = sample.name, sample.model
        period = facts["period"] = effects.period(model)
        facts["peak"] = {
            "originals": effects.stride_peak(sample.originals, period),
            "reconstructions": effects.stride_peak(sample.reconstructions, period),
        }
    if loaded is not None:
        name, model = loaded.name, loaded.model
    rows = [row for row in ModelSummary(model).rows if row.overlap]
    facts["layers"] = [{"name": r.name, "overlap": r.overlap, "even": r.even} for r in rows]
    print(json.dumps(facts) if as_json else _format_overlap(facts))
    if out:
        from convae.explain import charts

        _write(charts.overlaps(effects.overlaps(model), name), out)
        if run is not None:
            pictures = (sample.originals, sample.reconstructions)
            files = [str(Path(file).with_stem(f"{Path(file).stem}-spectrum")) for file in out]
            _write(charts.spectra(*pictures, period, sample.description), files)
    suggest("convae explain checkerboard", silent=as_json)


def _format_overlap(facts: dict[str, Any]) -> str:
    lines = []
    for row in facts["layers"]:
        low, high = row["overlap"]
        copies = f"{low} copies in each pixel: even" if row["even"] else f"{low} to {high}: UNEVEN"
        lines.append(f"{row['name']}: {copies}")
    if not lines:
        lines.append("the decoder has no transposed convolution")
    if peak := facts.get("peak"):
        lines.append(
            f"power at period {facts['period']} over its neighbors': "
            f"reconstructions {peak['reconstructions']:.2f}, originals {peak['originals']:.2f}"
        )
        risk = peak["reconstructions"] > 1.5 * peak["originals"]
        lines.append("a pattern that the originals do not have" if risk else "no checkerboard")
    return "\n".join(lines)


@explain_app.command()
def checkerboard(
    out: Out = None,
    seed: Annotated[int, Option(min=0, help="Of the random weights.")] = 0,
    as_json: Json = False,
) -> None:
    """Compare the checkerboards of four layers that double a size.

    Each has equal, random and trained weights.
    """
    from convae.explain import effects

    results = effects.checkerboards(seed)
    rows = [(one.name.replace("\n", " "), one.weights, one.contrast) for one in results]
    if as_json:
        keys = ("name", "weights", "contrast")
        print(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
    else:
        print("Contrast inside 2x2 blocks on a flat input: 0 is none, 1 the most\n")
        print(f"{'':46}{'equal':>8}{'random':>8}{'trained':>8}")
        for name in dict.fromkeys(name for name, _, _ in rows):
            cells = [f"{contrast:8.3f}" for layer, _, contrast in rows if layer == name]
            print(f"{name:46}{''.join(cells)}")
    if out:
        from convae.explain import charts

        _write(charts.checkerboards(results), out)
    suggest("convae explain upscale", silent=as_json)


@explain_app.command()
def upscale(
    factor: Annotated[int, Option(min=2, max=8, help="How many times as large.")] = 3,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Upsample bilinearly with a transposed convolution.

    A bilinear kernel makes the two the same.
    """
    from convae.explain import effects
    from convae.explain.worked_example import format_grid

    image = effects.ring_image(9)
    kernel = effects.bilinear_kernel(factor)
    upsampled = effects.upsample_bilinear(image, factor)
    difference = float(abs(upsampled - effects.interpolate(image, factor)).max())
    if as_json:
        print(json.dumps({"kernel": kernel.tolist(), "difference": difference}))
    else:
        print(f"strides {factor}, padding same, kernel {format_shape(kernel.shape)}:\n")
        print("\n".join(format_grid(kernel)))
        print(f"\nlargest difference to bilinear interpolation: {difference:.1e}")
    if out:
        from convae.explain import charts

        _write(charts.upscaling(image, factor), out)
    suggest("convae explain page", silent=as_json)


@explain_app.command()
def page(out: Annotated[str, Option("--out", metavar="FILE")] = "outputs/explain.html") -> None:
    """Write a page with sliders, which needs no network."""
    from convae.explain.explorer import write_page

    print(write_page(out))
    suggest(f"open {shlex.quote(out)} in a browser")


def _write(figure: Figure, names: list[str]) -> None:
    from convae.explain.cell_grid import write

    for name in names:
        print(write(figure, name), file=sys.stderr)
