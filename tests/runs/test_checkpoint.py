from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convae.runs.checkpoint import decode, encode

STATE = {"epoch": 3, "losses": [0.1 + 0.2], "config": "name: ä"}
ARRAYS = [np.arange(6, dtype=np.float32).reshape(2, 3), np.asarray(7), np.zeros((0, 2))]
COMPLETE = encode(STATE, ARRAYS)


def test_decode_is_exact_and_the_file_is_an_ordinary_npz(tmp_path: Path) -> None:
    state, arrays = decode(COMPLETE)
    assert state == STATE
    for array, again in zip(ARRAYS, arrays, strict=True):
        assert again.dtype == array.dtype
        np.testing.assert_array_equal(array, again)
    (tmp_path / "a.npz").write_bytes(COMPLETE)
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(file["arr_1"], ARRAYS[0])


def test_any_flipped_bit_is_noticed() -> None:
    for place in range(len(COMPLETE)):
        damaged = bytearray(COMPLETE)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(ValueError, match="SHA-256"):
            decode(bytes(damaged))


@given(st.integers(0, len(COMPLETE) - 1))
def test_a_missing_end_is_noticed(length: int) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        decode(COMPLETE[:length])
