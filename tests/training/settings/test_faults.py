"""What a misspelt key is answered with."""

import pytest
from pydantic import ValidationError

from posesdk_training.config import TrainConfig
from posesdk_training.settings.faults import described_faults, similar_key


@pytest.mark.parametrize(
    ("unknown", "meant"),
    [
        ("stepz", "steps"),
        ("optimiser", "optimizer"),
        ("optimizer.learning_rat", "optimizer.learning_rate"),
        ("data.sets.0.image", "data.sets.0.images"),
        ("data.rot", "data.root"),
        ("model.backbone.edge.stemm", "model.backbone.stem"),  # pydantic names the kind of backbone
        ("learning_rate", "optimizer.learning_rate"),  # of another section
        ("model.presett", "model.preset"),
    ],
)
def test_an_unknown_key_is_answered_with_the_one_that_was_meant(unknown: str, meant: str):
    assert similar_key(unknown.split("."), TrainConfig) == meant


def test_a_key_like_no_other_is_answered_with_none():
    assert similar_key(["qqqqq"], TrainConfig) is None


def test_own_messages_stand_without_words_of_the_library():
    with pytest.raises(ValidationError) as caught:
        TrainConfig.model_validate({"name": "run", "modell": {}})
    text = described_faults(caught.value, TrainConfig)
    assert "modell: there is no such key; did you mean model?" in text
    assert "Extra inputs" not in text
