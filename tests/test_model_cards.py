"""Model cards hold the figures of the reports beside them, and those of the models that are shipped."""

import json
from pathlib import Path

import pytest

from posesdk.bundle import open_bundle

pytest.importorskip("pycocotools", reason="cards are filled by the training package")

from posesdk_training.report.card import filled_card, stored_reports

ROOT = Path(__file__).resolve().parents[1]
CARDS = sorted((ROOT / "docs" / "models").glob("*.md"))
SHIPPED = sorted((ROOT / "sdk" / "posesdk" / "models").glob("*.posebundle"))


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_figures_are_those_of_the_reports(card):
    text = card.read_text("utf-8")
    assert text == filled_card(text, stored_reports(card)), f"run `posesdk-train card {card.relative_to(ROOT)}`"


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_reports_name_no_machine(card):
    for path in card.with_suffix("").glob("*.json"):
        texts = [value for value in _values(json.loads(path.read_text("utf-8"))) if isinstance(value, str)]
        assert [text for text in texts if text.startswith(("/", "~")) or ":\\" in text] == []


@pytest.mark.parametrize("bundle", SHIPPED, ids=lambda bundle: bundle.stem)
def test_shipped_model_has_a_card_with_its_accuracy(bundle):
    manifest = open_bundle(bundle).manifest
    report = stored_reports(ROOT / "docs" / "models" / f"{manifest.id}.md")["full"]
    entry = next(accuracy for accuracy in manifest.accuracy if accuracy.images == report["data"]["images"])
    # The bundle is measured in float32 on the device's side, its entry may be that of the checkpoint.
    assert report["stats"]["AP"] == pytest.approx(entry.metrics["AP"], abs=0.002)


def _values(tree):
    if isinstance(tree, dict):
        return [value for entry in tree.values() for value in _values(entry)]
    if isinstance(tree, list):
        return [value for entry in tree for value in _values(entry)]
    return [tree]
