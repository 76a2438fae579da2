"""Edits on the hub, without a network: what would be uploaded, and what a download or a folder gives back."""

import pytest
import torch

import grun
from eval.errors import ArtifactError
from eval.models import LanguageModel
from grun.stack import EditStack


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A folder that stands for the hub: uploads are copied there, downloads come from there."""
    import shutil
    from types import SimpleNamespace

    from huggingface_hub import hub_mixin

    import grun.hub

    root = tmp_path / "hub"
    created: list[tuple[str, bool | None]] = []

    class FakeApi:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, private=None, exist_ok=False, **_):
            created.append((repo_id, private))
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, *, repo_id, folder_path, **_):
            shutil.copytree(folder_path, root / repo_id)
            return f"https://hub/{repo_id}"

    def snapshot_download(repo_id, *, allow_patterns, **_):
        if not (root / repo_id).is_dir():
            raise FileNotFoundError(f"{repo_id} is not cached")
        assert "*.bin" not in allow_patterns
        return str(root / repo_id)

    monkeypatch.setattr(hub_mixin, "HfApi", FakeApi)
    monkeypatch.setattr(grun.hub, "snapshot_download", snapshot_download)
    return SimpleNamespace(root=root, created=created)


@torch.no_grad()
def _logits(lm, examples):
    return lm.answer_logits(lm.collate(lm.encode(examples, [example.answer for example in examples])))


def _named(lm, name):
    return LanguageModel(lm.model, lm.tokenizer, name=name)


def test_an_edit_goes_to_the_hub_and_comes_back(hub, make_lm, loud, examples):
    edited = loud(_named(make_lm(), "org/base-model"))
    edited.push_to_hub("org/edit", private=True)
    assert hub.created == [("org/edit", True)]
    names = {path.name for path in (hub.root / "org/edit").iterdir()}
    assert names == {"README.md", "grun_config.json", "grun.safetensors"}
    card = (hub.root / "org/edit/README.md").read_text()
    assert "base_model: org/base-model" in card
    assert 'EditedModel.from_pretrained("REPOSITORY", lm=lm)' in card
    again = grun.EditedModel.from_pretrained("org/edit", lm=make_lm())
    assert torch.equal(_logits(again, examples[:3]), _logits(edited, examples[:3]))


def test_a_stack_goes_to_the_hub_and_comes_back(hub, make_lm, loud, examples):
    lm = make_lm()
    stack = EditStack(lm)
    stack.add("one", loud(lm, seed=3))
    stack.add("two", loud(lm, seed=4))
    stack.push_to_hub("org/stack")
    again = grun.EditStack.from_pretrained("org/stack", lm=make_lm())
    assert again.names == ["one", "two"]
    assert torch.equal(_logits(again, examples[:3]), _logits(stack, examples[:3]))
    with pytest.raises(ArtifactError, match="saved by EditStack, not by EditedModel"):
        grun.EditedModel.from_pretrained("org/stack", lm=lm)


def test_a_folder_is_as_good_as_a_name(make_lm, loud, examples, tmp_path):
    edited = loud(make_lm())
    edited.save_pretrained(tmp_path)
    assert not (tmp_path / "config.json").exists(), "it would look like a whole Hugging Face model"
    assert "base_model:" not in (tmp_path / "README.md").read_text(), "a local base has no page on the hub"
    again = grun.EditedModel.from_pretrained(tmp_path, lm=make_lm())
    assert torch.equal(_logits(again, examples[:3]), _logits(edited, examples[:3]))
    assert isinstance(grun.attach(make_lm(), tmp_path), grun.EditedModel)


def test_what_is_not_there_is_refused(hub, make_lm):
    with pytest.raises(ArtifactError, match="'org/nothing' is neither a folder here"):
        grun.EditedModel.from_pretrained("org/nothing", lm=make_lm())
