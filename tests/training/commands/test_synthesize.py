import pytest
from typer.testing import CliRunner

from posesdk_training.program import app


@pytest.mark.parametrize("people", ["0", "5-2", "many", "1-99"])
def test_impossible_numbers_of_people_are_a_usage_error(tmp_path, people):
    arguments = ["synthesize", "--assets", str(tmp_path), "--output", str(tmp_path), "--people", people]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "--people" in result.stderr


def test_missing_assets_end_the_command_with_where_to_get_them(tmp_path):
    arguments = ["synthesize", "--assets", str(tmp_path / "none"), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "makehumancommunity" in result.stderr
    assert not (tmp_path / "out").exists()
