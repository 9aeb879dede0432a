"""The ledger: the reading's table, costs, verdicts and mends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from convae.config.loader import load_config
from convae.config.schema import Config
from convae.errors import ConvaeError
from convae.layers import fixes as mends
from convae.layers import summary as ledger
from convae.layers.spec import Model

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
    return model(
        size, [conv(strides=2)] * 3, [deconv(**options)] * 2 + [deconv(filters=1, **options)]
    )


def test_the_reading_s_table() -> None:
    config = load_config(MNIST)
    facts = ledger.summary(config.model)
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
        194_688,
        2_654_208,
        557_568,
        278_784,
        663_552,
        3_115_008,
        225_792,
    ]
    assert [r["receptive_field"][0] for r in facts["layers"]] == [3, 5, 7, 9, 11, 13, 15]
    assert facts["layers"][0]["activation_bytes"] == 26 * 26 * 32 * 4
    assert len(facts["warnings"]) == 1
    assert "4.94 times as large" in facts["warnings"][0]
    text = ledger.describe(config.model)
    assert "4.94 times as many" in text
    assert "12,785 parameters" in text


def test_checkerboards_are_named_with_their_mend() -> None:
    facts = ledger.summary(strided(24))
    assert [row["crop"] for row in facts["layers"][3:]] == [((0, 1), (0, 1))] * 3
    assert [row["overlap"] for row in facts["layers"][3:]] == [(1, 4)] * 3
    assert [row["even"] for row in facts["layers"]] == [True] * 3 + [False] * 3
    assert sum("kernel_size: 4 or 2" in text for text in facts["warnings"]) == 3
    assert "UNEVEN" in ledger.describe(strided(24))
    assert ledger.summary(strided(24, kernel_size=4))["warnings"] == []


@pytest.mark.parametrize(
    ("decoder", "text"),
    [
        ([deconv(kernel_size=2, strides=3, filters=1)], "dead pixels"),
        ([deconv(padding="valid", output_padding=1, filters=1)], "dead border: the last 1 rows"),
        ([conv(type="conv_transpose", dilation_rate=2, filters=1)], "oneDNN"),
        (
            [conv(strides=2, padding="valid", filters=1)],
            "its last 1 rows and 1 columns of input are never seen",
        ),
    ],
)
def test_other_warnings(decoder: list[dict[str, Any]], text: str) -> None:
    found = model(12, [conv()], decoder)
    assert text in "\n".join(ledger.warnings(found.input_shape, found.encoder, found.decoder))


def test_sizes_that_do_not_come_back() -> None:
    even, odd, larger = strided(24), strided(25), strided(23)
    assert ledger.check(even.input_shape, even.encoder, even.decoder) is None
    problem = ledger.check(odd.input_shape, odd.encoder, odd.decoder)
    assert problem is not None
    mend = [f"conv2d_transpose_{i}: output_padding: 0" for i in (1, 2, 3)]
    assert " and ".join(mend) in problem[1]
    assert mends.chain(25, odd.layers) == [25, 13, 7, 4, 8, 16, 32]
    assert mends.chain(23, larger.layers) == [23, 12, 6, 3, 6, 12, 24]
    assert mends.nearest_sizes(23, larger.layers) == [16, 24]


def test_every_mend_mends() -> None:
    for size in range(8, 40):
        found = strided(size)
        if mends.comes_back(size, found.layers):
            continue
        mend = mends.smallest_mend(
            found.input_shape, found.layers, 3, ledger.layer_names(found.layers)
        )
        assert mend is not None
        stack = list(found.layers)
        for part in mend.split(" and "):
            name, key, value = part.split(": ")
            at = ledger.layer_names(found.layers).index(name)
            parsed: Any = (
                value if key == "padding" else None if value == "null" else (int(value), int(value))
            )
            stack[at] = stack[at].model_copy(update={key: parsed})
        assert mends.comes_back(size, stack), (size, mend)


def test_the_trap_of_even_kernels_is_told_before_keras_dies() -> None:
    found = model(8, [conv(strides=2)], [deconv(kernel_size=4, output_padding=0, filters=1)])
    problem = ledger.check(found.input_shape, found.encoder, found.decoder)
    assert problem is not None
    assert problem[0] == 1
    assert "leave output_padding away" in problem[1]


def test_wrong_configs_carry_the_table() -> None:
    with pytest.raises(
        ConvaeError, match=r"smallest mend: conv2d_transpose_1: strides: 1(?s:.*)<--"
    ):
        load_config(MNIST, ["model.decoder.0.strides=2"])
    with pytest.raises(ConvaeError, match="larger than its input of 2x2"):
        load_config(MNIST, ["model.input_shape=[4,4,1]"])
    with pytest.raises(ConvaeError, match="two layers are called a"):
        load_config(MNIST, ["model.encoder.0.name=a", "model.encoder.1.name=a"])
    assert isinstance(load_config(MNIST), Config)
