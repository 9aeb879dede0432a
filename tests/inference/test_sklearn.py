"""The estimator in scikit-learn: its checks, a pipeline, a grid search."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")

from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from convae import ConvAutoencoder  # noqa: E402

QUICK = ConvAutoencoder(code_size=2, epochs=2, random_state=0)


@pytest.mark.slow
@parametrize_with_checks([QUICK])  # type: ignore[untyped-decorator]
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def rows(count: int = 60, features: int = 16) -> Any:
    """Return images that depend on two numbers, in the range -10 to 90."""
    numbers = np.random.default_rng(0).random((count, 2))
    patterns = np.random.default_rng(1).random((2, features)) > 0.5
    return (numbers @ patterns / 2 * 100 - 10).astype(np.float64)


def test_it_learns_and_decodes_its_codes() -> None:
    data = rows()
    estimator = ConvAutoencoder(4, epochs=150, batch_size=20, learning_rate=0.01, random_state=0)
    codes = estimator.fit(data).transform(data)
    assert codes.shape == (60, 4)
    assert codes.dtype == np.float64
    assert estimator.transform(data.astype(np.float32)).dtype == np.float32
    again = estimator.inverse_transform(codes)
    assert again.shape == data.shape
    assert estimator.score(data) == pytest.approx(-np.mean((again - data) ** 2))
    assert -estimator.score(data) < 0.2 * data.var()
    assert len(estimator.history_) == 150
    assert estimator.history_[-1] < estimator.history_[0]
    assert list(estimator.get_feature_names_out()) == [f"convautoencoder{i}" for i in range(4)]


def test_the_random_state_determines_the_bits() -> None:
    data = rows(20)
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    first = ConvAutoencoder(2, epochs=2, random_state=3).fit(data)
    np.testing.assert_array_equal(np.random.random(3), expected)  # noqa: NPY002
    other = ConvAutoencoder(2, epochs=2, random_state=4).fit(data)
    again = ConvAutoencoder(2, epochs=2, random_state=3).fit(data)
    np.testing.assert_array_equal(first.transform(data), again.transform(data))
    assert np.abs(first.transform(data) - other.transform(data)).max() > 0


def test_partial_fit_and_pickle_give_the_same_training() -> None:
    data = rows(30)
    whole = ConvAutoencoder(2, epochs=3, batch_size=8, random_state=0).fit(data)
    parts = ConvAutoencoder(2, epochs=3, batch_size=8, random_state=0)
    for _ in range(3):
        parts = pickle.loads(pickle.dumps(parts.partial_fit(data)))
    assert parts.history_ == whole.history_
    for ours, theirs in zip(parts.state_, whole.state_, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_in_a_pipeline_and_a_grid_search() -> None:
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    pipeline = make_pipeline(
        MinMaxScaler(), ConvAutoencoder(epochs=30, learning_rate=0.01, random_state=0)
    )
    search = GridSearchCV(pipeline, {"convautoencoder__code_size": [1, 4]}, cv=2).fit(rows())
    assert search.best_params_ == {"convautoencoder__code_size": 4}
    assert search.best_estimator_.transform(rows()).shape == (60, 4)


@pytest.mark.parametrize(
    ("shape", "features"),
    [(None, 784), (None, 1), (None, 2), (None, 13), ((9, 5, 3), 135), ((33, 2, 1), 66)],
)
def test_the_layers_fit_any_size(shape: Any, features: int) -> None:
    from convae.inference.sklearn import build, image_shape
    from convae.layers.summary import ModelSummary

    model = build(image_shape(features, shape), 5)
    summary = ModelSummary(model)
    assert summary.find_problem() is None
    assert summary.code_shape == (1, 1, 5)
    assert np.prod(model.input_shape) == features


def test_rgb_images_in_rows() -> None:
    data = np.random.default_rng(0).integers(0, 256, (6, 5 * 4 * 3)).astype(float)
    estimator = ConvAutoencoder(3, input_shape=(5, 4, 3), epochs=1, random_state=0).fit(data)
    assert estimator.config_.model.input_shape == (5, 4, 3)
    assert estimator.inverse_transform(estimator.transform(data)).shape == data.shape


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"code_size": 0}, "code_size must be an integer of 1 or more. Received: 0"),
        ({"epochs": 1.5}, "epochs must be an integer"),
        ({"learning_rate": 0.0}, "learning_rate must be a number above 0"),
        ({"input_shape": (4, 5, 1)}, "product of 16"),
        ({"input_shape": (4, 2, 2)}, "1 or 3"),
    ],
)
def test_wrong_parameters_are_refused(wrong: dict[str, Any], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        ConvAutoencoder(**wrong).fit(rows(5))


def test_codes_of_another_size_are_refused() -> None:
    estimator = ConvAutoencoder(2, epochs=1, random_state=0).fit(rows(5))
    with pytest.raises(ValueError, match=r"codes must be \(N, 2\)"):
        estimator.inverse_transform(np.zeros((3, 4)))


def test_without_scikit_learn_the_error_names_the_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    from convae.errors import ConvaeError

    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    monkeypatch.delitem(sys.modules, "convae.inference.sklearn")
    with pytest.raises(ConvaeError, match="pip install 'convae\\[sklearn\\]'"):
        import convae.inference.sklearn  # noqa: F401


@pytest.mark.parametrize(
    ("parameter", "values"),
    [
        ("code_size", ["8", 8.0, None, True, 0]),
        ("epochs", ["1", 1.5, None, False]),
        ("batch_size", ["20", [20], -1]),
        ("learning_rate", ["1e-3", None, True, 1j, [0.1], 0, float("nan"), float("inf")]),
        ("input_shape", ["881", 64, (8, 8), ("8", "8", "1"), (8.0, 8.0, 1.0), (8, 8, 2), {8, 1}]),
    ],
)
def test_a_wrong_parameter_is_one_clear_error(parameter: str, values: list[Any]) -> None:
    for value in values:
        estimator = ConvAutoencoder(**{parameter: value})
        with pytest.raises(ValueError, match=f"^{parameter} must be .*Received: "):
            estimator.fit(np.zeros((4, 64)))
