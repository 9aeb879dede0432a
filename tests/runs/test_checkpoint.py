from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convae.runs.checkpoint import pack, unpack

STATE = {"epoch": 3, "losses": [0.1 + 0.2], "config": "name: ä"}
ARRAYS = [np.arange(6, dtype=np.float32).reshape(2, 3), np.asarray(7), np.zeros((0, 2))]
WHOLE = pack(STATE, ARRAYS)


def test_it_comes_back_bit_for_bit_and_is_an_ordinary_npz(tmp_path: Path) -> None:
    state, arrays = unpack(WHOLE)
    assert state == STATE
    for array, again in zip(ARRAYS, arrays, strict=True):
        assert again.dtype == array.dtype
        np.testing.assert_array_equal(array, again)
    (tmp_path / "a.npz").write_bytes(WHOLE)
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(file["arr_1"], ARRAYS[0])


def test_no_flipped_bit_goes_unseen() -> None:
    for place in range(len(WHOLE)):
        damaged = bytearray(WHOLE)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(ValueError, match="SHA-256"):
            unpack(bytes(damaged))


@given(st.integers(0, len(WHOLE) - 1))
def test_nor_a_missing_end(length: int) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        unpack(WHOLE[:length])
