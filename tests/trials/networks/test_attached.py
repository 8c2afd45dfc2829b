"""What trackers attach of a trial: masks and networks that the trial's config can be rebuilt with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sweeper.space.options.callbacks import ARTIFACTS
from tests.trials.networks.test_export_forms import IMAGES, written
from tests.trials.networks.test_export_forms import whole_masks as expected_masks
from tests.trials.stored_networks import outputs
from trials import compact
from trials.errors import UserError
from trials.networks.attached import write_attached

pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.mark.parametrize("kind", ["dense", "masked", "shrunk and masked"])
def test_every_form_rebuilds_the_network(tmp_path: Path, kind: str) -> None:
    net, _ = written(kind, "dense", tmp_path)
    trial, folder = tmp_path / "trial", tmp_path / "files"
    (trial / "config.json").write_text(json.dumps({"id": "a", "config": {"dataset": "digits"}}))
    folder.mkdir()
    sizes = write_attached(trial, folder, ARTIFACTS)
    assert sizes == {path.name: path.stat().st_size for path in folder.iterdir()}
    assert set(sizes) == {"config.json", *(f"{form}.pt" for form in ARTIFACTS)}
    assert json.loads((folder / "config.json").read_bytes())["config"] == {"dataset": "digits"}
    masks = torch.load(folder / "masks.pt", weights_only=True)
    assert masks.keys() == ({} if kind == "dense" else expected_masks(kind)).keys()
    dense = torch.load(folder / "dense.pt", weights_only=True)
    for name, mask in masks.items():
        assert mask.dtype == torch.bool
        assert torch.equal(mask, expected_masks(kind)[name])
        assert torch.equal(dense[name], dense[name] * mask)
    torch.testing.assert_close(outputs(compact.load(folder / "compact.pt"), IMAGES), outputs(net.model, IMAGES))


def test_a_folder_without_a_checkpoint_has_nothing_to_attach(tmp_path: Path) -> None:
    (tmp_path / "trial").mkdir()
    (tmp_path / "trial" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="that has committed a checkpoint, but has none"):
        write_attached(tmp_path / "trial", tmp_path, ["masks"])
