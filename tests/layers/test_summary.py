"""The model summary: the article's table, costs, warnings and suggested fixes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from convae.config.loader import load_config
from convae.config.schema import Config
from convae.errors import ConvaeError
from convae.layers.arithmetic import ConvAxis, Operation
from convae.layers.fixes import nearest_restored_sizes, restores, sizes_through, smallest_fix
from convae.layers.spec import LayerSpec, Model, Shape
from convae.layers.summary import ModelSummary, layer_names

MNIST = Path(__file__).parents[2] / "configs" / "mnist.yaml"


def conv(**options: Any) -> dict[str, Any]:
    return {"type": "conv", "filters": 4, "kernel_size": 3, "padding": "same"} | options


def deconv(**options: Any) -> dict[str, Any]:
    return conv(type="conv_transpose", strides=2) | options


def model(size: int, encoder: list[dict[str, Any]], decoder: list[dict[str, Any]]) -> Model:
    return Model.model_validate(
        {"input_shape": (size, size, 1), "encoder": tuple(encoder), "decoder": tuple(decoder)}
    )


def strided(size: int, **options: Any) -> Model:
    decoder = [deconv(**options)] * 2 + [deconv(filters=1, **options)]
    return model(size, [conv(strides=2)] * 3, decoder)


def test_the_article_s_table() -> None:
    config = load_config(MNIST)
    facts = config.model_summary.to_dict()
    assert [(r["name"], r["output_shape"], r["parameters"]) for r in facts["layers"]] == [
        ("conv2d_1", (26, 26, 32), 320),
        ("conv2d_2", (24, 24, 16), 4624),
        ("conv2d_3", (22, 22, 8), 1160),
        ("conv2d_transpose_1", (24, 24, 8), 584),
        ("conv2d_transpose_2", (26, 26, 16), 1168),
        ("conv2d_transpose_3", (28, 28, 32), 4640),
        ("conv2d_4", (28, 28, 1), 289),
    ]
    assert facts["parameters"] == 12_785
    assert facts["code_size"] == 3872
    assert facts["code_ratio"] == pytest.approx(4.94, abs=0.005)
    assert [r["macs"] for r in facts["layers"]] == [
        194_688, 2_654_208, 557_568, 278_784, 663_552, 3_115_008, 225_792,
    ]  # fmt: skip
    assert [r["receptive_field"][0] for r in facts["layers"]] == [3, 5, 7, 9, 11, 13, 15]
    assert facts["layers"][0]["activation_bytes"] == 26 * 26 * 32 * 4
    assert len(facts["warnings"]) == 1
    assert "4.94 times as large" in facts["warnings"][0]
    for part in ("4.94 times as many", "12,785 parameters"):
        assert part in str(config.model_summary)


def test_checkerboards_are_warned_of_with_a_fix() -> None:
    facts = ModelSummary(strided(24)).to_dict()
    assert [row["crop"] for row in facts["layers"][3:]] == [((0, 1), (0, 1))] * 3
    assert [row["overlap"] for row in facts["layers"][3:]] == [(1, 4)] * 3
    assert [row["even"] for row in facts["layers"]] == [True] * 3 + [False] * 3
    assert sum("kernel_size: 4 or 2" in text for text in facts["warnings"]) == 3
    assert "UNEVEN" in str(ModelSummary(strided(24)))
    assert ModelSummary(strided(24, kernel_size=4)).warnings == []


@pytest.mark.parametrize(
    ("decoder", "text"),
    [
        ([deconv(kernel_size=2, strides=3, filters=1)], "dead pixels"),
        ([deconv(padding="valid", output_padding=1, filters=1)], "dead border: the last 1 rows"),
        ([conv(type="conv_transpose", dilation_rate=2, filters=1)], "oneDNN"),
        ([conv(strides=2, padding="valid", filters=1)],
         "the last 1 rows and 1 columns of its input are never used"),
    ],
)  # fmt: skip
def test_other_warnings(decoder: list[dict[str, Any]], text: str) -> None:
    assert text in "\n".join(ModelSummary(model(12, [conv()], decoder)).warnings)


def test_a_layer_that_onednn_computes_wrong_is_refused() -> None:
    options = {"kernel_size": 2, "strides": (1, 3), "padding": "valid", "filters": 1}
    down, up = conv(**options), conv(type="conv_transpose", **options)
    for encoder, decoder, wrong, kernel in (
        ([down], [up], 0, "2"),
        ([conv(), conv(strides=(1, 4))], [up], 2, "[2, 3]"),  # has it as gradient
    ):
        found = Model.model_validate(
            {"input_shape": (5, 2, 1), "encoder": tuple(encoder), "decoder": tuple(decoder)}
        )
        problem = ModelSummary(found).find_problem()
        assert problem is not None
        assert problem[0] == wrong
        assert "oneDNN computes it wrong" in problem[1]
        assert f"kernel_size: {kernel}, strides: 1 and padding: valid" in problem[1]
    right = {**options, "strides": 1}
    fixed = Model.model_validate({
        "input_shape": (5, 2, 1), "encoder": (conv(**right),),
        "decoder": (conv(type="conv_transpose", **right),),
    })  # fmt: skip
    assert ModelSummary(fixed).find_problem() is None


def test_sizes_that_the_decoder_does_not_restore() -> None:
    odd, larger = strided(25), strided(23)
    assert ModelSummary(strided(24)).find_problem() is None
    problem = ModelSummary(odd).find_problem()
    assert problem is not None
    fix = [f"conv2d_transpose_{i}: output_padding: 0" for i in (1, 2, 3)]
    assert " and ".join(fix) in problem[1]
    assert sizes_through(25, odd.layers) == [25, 13, 7, 4, 8, 16, 32]
    assert sizes_through(23, larger.layers) == [23, 12, 6, 3, 6, 12, 24]
    assert nearest_restored_sizes(23, larger.layers) == [16, 24]


def test_every_suggested_fix_fixes_the_size() -> None:
    for size in range(8, 40):
        found = strided(size)
        if restores(size, found.layers):
            continue
        names = layer_names(found.layers)
        fix = smallest_fix(found, names, found.input_shape)
        assert fix is not None
        stack = list(found.layers)
        for part in fix.split(" and "):
            name, key, value = part.split(": ")
            at = names.index(name)
            parsed: Any = yaml.safe_load(value)
            if isinstance(parsed, int):
                parsed = (parsed, parsed)
            stack[at] = stack[at].model_copy(update={key: parsed})
        assert restores(size, stack), (size, fix)


def test_an_even_kernel_with_output_padding_0_is_refused() -> None:
    found = model(8, [conv(strides=2)], [deconv(kernel_size=4, output_padding=0, filters=1)])
    problem = ModelSummary(found).find_problem()
    assert problem is not None
    assert problem[0] == 1
    assert "leave output_padding out" in problem[1]


def test_wrong_configs_carry_the_table() -> None:
    fix = r"suggested fix: conv2d_transpose_1: strides: 1(?s:.*)<--"
    with pytest.raises(ConvaeError, match=fix):
        load_config(MNIST, ["model.decoder.0.strides=2"])
    with pytest.raises(ConvaeError, match="larger than its input of 2 pixels"):
        load_config(MNIST, ["model.input_shape=[4,4,1]"])
    with pytest.raises(ConvaeError, match="two layers are called a"):
        load_config(MNIST, ["model.encoder.0.name=a", "model.encoder.1.name=a"])
    assert isinstance(load_config(MNIST), Config)


def test_a_new_layer_type_is_refused_until_it_is_complete() -> None:
    class Pool(LayerSpec):
        type: str = "pool"

    with pytest.raises(TypeError, match=r"abstract class Pool .*macs.*operations"):
        Pool()  # type: ignore[abstract]

    class MaxPool(Pool):
        keras_name = "max_pooling2d"
        label = "MaxPooling2D"

        @property
        def kernel_strides(self) -> tuple[int, int]:
            return 2, 2

        def operations(self, axis: int) -> list[Operation]:
            return [ConvAxis(2, 2)]

        def output_channels(self, channels: int) -> int:
            return channels

        def parameters(self, channels: int) -> int:
            return 0

        def macs(self, input_shape: Shape, output_shape: Shape) -> int:
            return 0

    found = strided(24)
    stack = (found.encoder[0], MaxPool(), found.encoder[1])
    summary = ModelSummary(found.model_copy(update={"encoder": stack}))
    assert [row.output_shape for row in summary.encoder] == [(12, 12, 4), (6, 6, 4), (3, 3, 4)]
    assert [row.receptive_field[0] for row in summary.encoder] == [3, 5, 13]
    assert summary.find_problem() is None
    assert summary.names[:3] == ["conv2d_1", "max_pooling2d_1", "conv2d_2"]
