"""What generation_config.json states: ends (or else config.json), and how to draw."""

import json
import shutil
from pathlib import Path

import pytest

from hydragen_tree.errors import ModelError
from hydragen_tree.model.eos import stated_sampling
from hydragen_tree.model.loading import find_model
from hydragen_tree.model.tiny import MODEL_DIR


@pytest.fixture
def model(tmp_path: Path) -> Path:
    for name in ("config.json", "generation_config.json"):
        shutil.copy(MODEL_DIR / name, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"eos_token_id": 7}))
    return tmp_path


def state(model: Path, text: str) -> None:
    (model / "generation_config.json").write_text(text)


@pytest.mark.parametrize(
    ("text", "ids"),
    [('{"eos_token_id": 5}', {5}), ('{"eos_token_id": [5, 6]}', {5, 6}), ("{}", {7})],
)
def test_stated_ids_come_first(model: Path, text: str, ids: set[int]) -> None:
    state(model, text)
    assert find_model(str(model)).eos_ids == ids


def test_there_may_be_no_such_file(model: Path) -> None:
    (model / "generation_config.json").unlink()
    assert find_model(str(model)).eos_ids == {7}


DEEP = '{"a":' * 20_000


@pytest.mark.parametrize(
    "text", ["{", "[]", "null", "", DEEP, '{"eos_token_id": "</s>"}', '{"eos_token_id": [1.5]}']
)
def test_a_broken_one_is_named(model: Path, text: str) -> None:
    state(model, text)
    with pytest.raises(ModelError, match=r"generation_config\.json: .*(expected|mend)"):
        find_model(str(model))


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("{}", {}),
        ('{"temperature": 0.6, "top_k": 20, "top_p": null}', {"temperature": 0.6, "top_k": 20}),
        ('{"do_sample": true, "min_p": "low", "top_p": 1}', {"top_p": 1}),
        ("{", {}),
    ],
)
def test_how_it_would_be_drawn(model: Path, text: str, stated: dict[str, float]) -> None:
    state(model, text)
    assert stated_sampling(str(model), None) == stated
    (model / "generation_config.json").unlink()
    assert stated_sampling(str(model), None) == {}
