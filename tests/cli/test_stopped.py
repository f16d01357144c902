"""Ctrl-C: a command that is stopped says what is kept and how to go on."""

import pytest

from modelinscale.cli import main


def test_a_command_that_is_stopped_says_what_is_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("modelinscale.api.Project", interrupted)
    monkeypatch.setattr("sys.argv", ["mis", "check"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 130
    assert "run it again to go on" in capsys.readouterr().err
