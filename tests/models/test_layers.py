"""A new layer type is refused by name until its row in LAYER_OPS exists."""

from typing import Any, Literal

import numpy as np
import pytest

from convae.errors import UnsupportedError
from convae.layers.spec import Conv


class Pool(Conv):
    type: Literal["pool"]  # type: ignore[assignment]


def test_a_new_layer_type_is_refused_until_it_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    from convae.models.layers import LAYER_OPS, layer_ops
    from convae.runtime.backend import tf

    spec: Any = Pool(type="pool", filters=2, kernel_size=(3, 3))
    with pytest.raises(UnsupportedError, match="layer type pool: has no row in LAYER_OPS"):
        layer_ops(spec.type)
    monkeypatch.setitem(LAYER_OPS, "pool", LAYER_OPS["conv"])
    layer = layer_ops(spec.type).build(spec, "pool_1", [0, 0])
    x = tf.constant(np.ones((1, 5, 5, 1), np.float32))
    expected: Any = layer(x)
    np.testing.assert_array_equal(layer_ops(spec.type).forward(spec, layer, x), expected)
