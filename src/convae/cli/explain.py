"""The command `explain`: one's own numbers, and below it what the operation does beyond them.

NumPy and matplotlib are imported by the commands that need them, never before.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convae.cli.options import Json
from convae.console import format_shape, suggest
from convae.errors import ConfigError

if TYPE_CHECKING:
    from convae.explain.step_figures import View
    from convae.explain.worked_example import Case

explain_app = typer.Typer(
    help="See a transposed convolution with your own numbers; more with a command below.",
    no_args_is_help=False,
    invoke_without_command=True,
    rich_markup_mode=None,
)

STEPS = "convae explain --example 2 --out steps.gif"
Out = Annotated[
    list[str] | None, typer.Option("--out", metavar="FILE", help="Write a picture: .png or .svg.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE ...]", help="Overrides, such as model.input_shape=[32,32,1]."
    ),
]
Input = Annotated[str | None, typer.Option("--input", metavar='"1 2; 3 4"', help="The input.")]
Kernel = Annotated[str | None, typer.Option("--kernel", metavar='"0 1; 2 3"', help="The kernel.")]
Stride = Annotated[
    str | None, typer.Option("--stride", "--strides", metavar="S", help="One number, or two: 2,1.")
]
PaddingText = Annotated[
    str | None, typer.Option("--padding", metavar="P", help="valid, same, or a number.")
]
Dilation = Annotated[
    str | None, typer.Option("--dilation", "--dilation-rate", metavar="D", help="Likewise.")
]


@explain_app.callback()
def explain(
    context: typer.Context,
    input_: Input = None,
    kernel: Kernel = None,
    stride: Stride = None,
    padding: PaddingText = None,
    output_padding: Annotated[
        str | None, typer.Option("--output-padding", metavar="O", help="Less than the stride.")
    ] = None,
    dilation: Dilation = None,
    example: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the reading: basic, 1, 2, 3 or 4.")
    ] = None,
    conv: Annotated[bool, typer.Option("--conv", help="A convolution instead.")] = False,
    out: Annotated[
        list[str] | None,
        typer.Option(
            "--out", metavar="FILE", help="Write a picture: .png, .svg, or .gif in steps."
        ),
    ] = None,
    view: Annotated[
        str, typer.Option(metavar="VIEW", help="Steps of a .gif: copies, or zeros.")
    ] = "copies",
    verify: Annotated[bool, typer.Option("--verify", help="Ask the installed Keras too.")] = False,
    as_json: Json = False,
) -> None:
    """See a transposed convolution with your own numbers."""
    given = {
        "input": input_,
        "kernel": kernel,
        "strides": stride,
        "padding": padding,
        "output_padding": output_padding,
        "dilation_rate": dilation,
    }
    if context.invoked_subcommand:
        if left := [
            f"--{name.replace('_', '-')}" for name, text in given.items() if text is not None
        ]:
            raise ConfigError(f"{', '.join(left)} must stand behind {context.invoked_subcommand}")
        return
    if view not in ("copies", "zeros"):
        raise ConfigError(f"--view must be copies or zeros. Received: {view}")
    if example is None and input_ is None and kernel is None:
        example = "basic"
    title, case = _case(given, example, conv)
    if not as_json:
        from convae.explain.worked_example import told

        print((f"{title}\n" if title else "") + told(case))
    facts = _facts(case)
    if verify:
        facts["keras_difference"] = _keras_difference(case)
        if not as_json:
            print(f"\nthe installed Keras differs by {facts['keras_difference']:g}")
    if as_json:
        print(json.dumps(facts))
    for name in out or []:
        _draw(case, title, name, "zeros" if view == "zeros" else "copies")
    suggest("convae explain inverse" if out else STEPS, silent=as_json)


def _case(given: dict[str, str | None], example: str | None, conv: bool) -> tuple[str | None, Case]:
    """The case of an example, of what was typed, or of an example with what was typed over it."""
    from convae.explain import worked_example as cases
    from convae.explain.operation import ConvOptions

    title, start = None, None
    if example is not None:
        if example not in cases.EXAMPLES:
            known = ", ".join(cases.EXAMPLES)
            raise ConfigError(f"--example must be one of {known}. Received: {example}")
        title, start = cases.EXAMPLES[example]
        if any(given.values()) or conv:
            title = None
    elif given["input"] is None or given["kernel"] is None:
        missing = "--kernel" if given["kernel"] is None else "--input"
        raise ConfigError(f'{missing} is missing: write it as {missing} "1 2; 3 4"')
    old = start.setting if start else ConvOptions()
    strides, extra, dilation = (
        None if (text := given[name]) is None else cases.pair(text, name, least)
        for name, least in (("strides", 1), ("output_padding", 0), ("dilation_rate", 1))
    )
    return title, cases.Case(
        start.x
        if start and given["input"] is None
        else cases.matrix(given["input"] or "", "input"),
        start.kernel
        if start and given["kernel"] is None
        else cases.matrix(given["kernel"] or "", "kernel"),
        ConvOptions(
            strides or old.strides,
            old.padding if given["padding"] is None else cases.padding(given["padding"]),
            extra if extra is not None else old.output_padding,
            dilation or old.dilation_rate,
        ),
        "conv" if conv or (start and start.operation == "conv") else "conv_transpose",
    )


def _facts(case: Case) -> dict[str, Any]:
    result = case.result()
    facts: dict[str, Any] = {
        "operation": case.operation,
        "input": case.x.tolist(),
        "kernel": case.kernel.tolist(),
        "strides": case.setting.strides,
        "padding": case.setting.padding,
        "output_padding": case.setting.output_padding,
        "dilation_rate": case.setting.dilation_rate,
        "output": result.tolist(),
        "output_shape": result.shape,
    }
    if case.operation == "conv_transpose":
        facts["crop"] = case.crops
    return facts


def _keras_difference(case: Case) -> float:
    import os

    import numpy as np

    from convae.explain import operation as transpose

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # dilation needs it on a CPU
    conv = case.operation == "conv"
    run = transpose.conv if conv else transpose.conv_transpose
    method = transpose.conv_by_keras if conv else transpose.transpose_by_keras
    try:
        keras = run(case.x, case.kernel, case.setting, method)
    except Exception as error:  # Keras and TensorFlow raise many kinds
        raise ConfigError(f"the installed Keras cannot run this here: {error}") from None
    return float(np.abs(keras - case.result()).max())


def _draw(case: Case, title: str | None, name: str, view: View) -> None:
    from convae.explain import step_figures as figures
    from convae.explain.cell_grid import check_format, write

    check_format(name)
    steps = name.endswith(".gif")
    path = write(figures.frames(case, title, view) if steps else figures.panels(case, title), name)
    print(path, file=sys.stderr)


@explain_app.command()
def inverse(
    input_: Input = None,
    kernel: Kernel = None,
    stride: Stride = None,
    padding: PaddingText = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Show that the transpose is no inverse but the adjoint: x, Cx, C^T C x, the pseudo-inverse."""
    from convae.explain import effects
    from convae.explain import worked_example as cases
    from convae.explain.operation import ConvOptions

    found = effects.adjoint(
        cases.matrix(input_ or "0 1 2; 3 4 5; 6 7 8", "input"),
        cases.matrix(kernel or "1 2; 2 1", "kernel"),
        ConvOptions(cases.pair(stride or "1", "strides", 1), cases.padding(padding or "valid")),
    )
    first, second = found.products
    if as_json:
        matrices = {"x": found.x, "cx": found.cx, "ctcx": found.back, "pseudo": found.pseudo}
        numbers = {name: matrix.tolist() for name, matrix in matrices.items()}
        print(
            json.dumps(
                numbers | {"y": found.y.tolist(), "products": [first, second], "rank": found.rank}
            )
        )
    else:
        grids = {"x": found.x, "Cx": found.cx, "C^T C x": found.back, "C^+ C x": found.pseudo}
        print("The transpose of a convolution is not its inverse:\n")
        print(cases.beside([(name, cases.grid_lines(grid)) for name, grid in grids.items()]))
        print(f"\nC is a matrix of {format_shape(found.matrix_shape)} with rank {found.rank}.")
        print(f"But it is the adjoint: <Cx, y> = {first:g} = <x, C^T y> = {second:g}, for any y.")
    if out:
        from convae.explain import charts

        _write(charts.adjoint(found), out)
    suggest("convae explain overlap configs/mnist.yaml", silent=as_json)


@explain_app.command()
def overlap(
    config: Annotated[
        str | None, typer.Argument(metavar="CONFIG", help="A YAML file; not needed with --run.")
    ] = None,
    overrides: Overrides = None,
    run: Annotated[
        str | None, typer.Option(metavar="RUN", help="Also the spectrum of its reconstructions.")
    ] = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Show how often kernel copies meet behind each layer of a decoder, and what a run makes of it.

    With --run, the pictures are FILE for the maps and FILE-spectrum for the spectrum.
    """
    from convae.config.loader import load_config
    from convae.explain import effects
    from convae.layers import summary as ledger

    if config is None and run is None:
        raise ConfigError("which config? For example: convae explain overlap configs/mnist.yaml")
    facts: dict[str, Any] = {}
    if run is not None:
        from convae.explain.trained import reconstructed  # TensorFlow, from here on

        seen = reconstructed(run)
        name, model = seen.name, seen.model
        facts["period"] = effects.period(model)
        facts["peak"] = {
            "originals": effects.stride_peak(seen.originals, facts["period"]),
            "reconstructions": effects.stride_peak(seen.reconstructions, facts["period"]),
        }
    if config is not None:
        loaded = load_config(config, overrides or [])
        name, model = loaded.name, loaded.model
    rows = [row for row in ledger.layer_rows(model.input_shape, model.layers) if row.overlap]
    facts["layers"] = [{"name": r.name, "overlap": r.overlap, "even": r.even} for r in rows]
    print(json.dumps(facts) if as_json else _overlap_told(facts))
    if out:
        from convae.explain import charts

        _write(charts.overlaps(effects.overlaps(model), name), out)
        if run is not None:
            spectra = charts.spectra(
                seen.originals, seen.reconstructions, facts["period"], seen.data
            )
            paths = [Path(file) for file in out]
            _write(spectra, [str(p.with_stem(f"{p.stem}-spectrum")) for p in paths])
    suggest("convae explain checkerboard", silent=as_json)


def _overlap_told(facts: dict[str, Any]) -> str:
    lines = []
    for row in facts["layers"]:
        low, high = row["overlap"]
        copies = f"{low} copies in each pixel: even" if row["even"] else f"{low} to {high}: UNEVEN"
        lines.append(f"{row['name']}: {copies}")
    if not lines:
        lines.append("the decoder has no transposed convolution")
    if "peak" in facts:
        peak = facts["peak"]
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
    seed: Annotated[int, typer.Option(min=0, help="Of the random weights.")] = 0,
    as_json: Json = False,
) -> None:
    """Compare four ways to double a size, with equal, random and trained weights."""
    from convae.explain import effects

    found = effects.checkerboards(seed)
    if as_json:
        facts = [
            {"name": c.name.replace("\n", " "), "weights": c.weights, "contrast": c.contrast}
            for c in found
        ]
        print(json.dumps(facts))
    else:
        print("Contrast inside 2x2 blocks on a flat input: 0 is none, 1 the most\n")
        print(f"{'':46}{'equal':>8}{'random':>8}{'trained':>8}")
        for name in dict.fromkeys(c.name for c in found):
            values = "".join(f"{c.contrast:8.3f}" for c in found if c.name == name)
            print(f"{name.replace(chr(10), ' '):46}{values}")
    if out:
        from convae.explain import charts

        _write(charts.checkerboards(found), out)
    suggest("convae explain upscale", silent=as_json)


@explain_app.command()
def upscale(
    factor: Annotated[int, typer.Option(min=2, max=8, help="How many times as large.")] = 3,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Show that a bilinear kernel in a transposed convolution is bilinear upsampling."""
    import numpy as np

    from convae.explain import effects
    from convae.explain import worked_example as cases

    image = effects.disc(9)
    kernel = effects.bilinear_kernel(factor)
    difference = np.abs(effects.upscale(image, factor) - effects.interpolate(image, factor)).max()
    if as_json:
        print(json.dumps({"kernel": kernel.tolist(), "difference": float(difference)}))
    else:
        print(f"strides {factor}, padding same, kernel {format_shape(kernel.shape)}:\n")
        print("\n".join(cases.grid_lines(kernel)))
        print(f"\nlargest difference to bilinear interpolation: {difference:.1e}")
    if out:
        from convae.explain import charts

        _write(charts.upscaling(image, factor), out)
    suggest("convae explain page", silent=as_json)


@explain_app.command()
def page(
    out: Annotated[str, typer.Option("--out", metavar="FILE")] = "outputs/explain.html",
) -> None:
    """Write the page with sliders: one HTML file that needs no network."""
    from convae.explain.explorer import write_page

    print(write_page(out))
    suggest(f"open {out} in a browser")


def _write(figure: Any, names: list[str]) -> None:
    from convae.explain.cell_grid import check_format, write

    for name in names:
        check_format(name, (".png", ".svg"))
    for name in names:
        print(write(figure, name), file=sys.stderr)
