import sys
import threading

import pytest

from convae.runtime import importing


def test_extras_are_hidden_while_the_backend_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = sys  # stands for a package that the program has imported itself
    monkeypatch.setattr(importing, "EXTRAS", ("convae_missing_extra", "convae_own_extra"))
    monkeypatch.setitem(sys.modules, "convae_own_extra", kept)
    threads = []

    def import_module(name: str) -> None:
        assert name == "convae.runtime.backend"
        with pytest.raises(ModuleNotFoundError):
            __import__("convae_missing_extra")
        assert __import__("convae_own_extra") is kept
        threads.append(threading.current_thread())

    monkeypatch.setattr(importing, "import_module", import_module)
    with importing.backend_meanwhile():
        pass
    assert threads != [threading.current_thread()]
    assert "convae_missing_extra" not in sys.modules
    assert sys.modules["convae_own_extra"] is kept


def test_an_error_of_the_import_is_raised_and_that_of_the_block_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def import_module(_: str) -> None:
        raise ImportError("no TensorFlow")

    monkeypatch.setattr(importing, "import_module", import_module)
    with pytest.raises(ImportError, match="no TensorFlow"), importing.backend_meanwhile():
        pass
    with pytest.raises(ValueError, match="data"), importing.backend_meanwhile():
        raise ValueError("data")
