"""What the import of TensorFlow hides and shows."""

import os
import tempfile
from contextlib import suppress

import pytest

from convae.errors import ConvaeError


def test_a_log_is_shown_after_an_error_only(capfd: pytest.CaptureFixture[str]) -> None:
    from convae.runtime.backend import quiet

    with quiet() as captured:
        os.write(2, b"a line of TensorFlow's\n")
        captured.seek(0)
        assert captured.read() == b"a line of TensorFlow's\n"
    assert capfd.readouterr().err == ""
    with suppress(ValueError), quiet():
        os.write(2, b"another line\n")
        raise ValueError
    assert capfd.readouterr().err == "another line\n"


def test_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    from convae.runtime.backend import quiet
    from convae.runtime.launch import launch

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    message = r"No usable temporary directory found in \['/nowhere'\]. .* TMPDIR names another"
    with pytest.raises(ConvaeError, match=message), quiet():
        pass
    with pytest.raises(ConvaeError, match=message):
        launch([["true"]])
