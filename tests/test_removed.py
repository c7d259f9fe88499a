"""A run whose list of removed documents grows: what it reads, saves and refuses."""

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from blendtitan import BlendConfig, DataLoader, build_datasets
from blendtitan.dataset.documents import IGNORE_INDEX
from blendtitan.errors import ConfigError, ResumeError
from blendtitan.grain_source import BlendSource
from blendtitan.history.removals import removals_of
from blendtitan.order.blend import Segment
from blendtitan.state import STATE_KEY
from tests.conftest import EOD, WriteBlend, WriteShard

CORPORA = {"web": (0.6, [700, 500]), "code": (0.4, [350])}
FIRST = [("web_0", 3), ("web_1", 40), ("code_0", 7)]
LATER = [("web_0", 90), ("code_0", 30)]

Listed = list[tuple[str, int]]
Batches = list[tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture
def config(write_blend: WriteBlend) -> BlendConfig:
    return write_blend(CORPORA, seq_length=8)


def removing(config: BlendConfig, listed: Listed, **settings: Any) -> BlendConfig:
    folder = Path(config.data_file_list).parent
    path = folder / f"removed_{len(list(folder.glob('removed_*')))}"
    path.write_text("\n".join(f"{shard} {document}" for shard, document in listed))
    return dataclasses.replace(config, removed_documents=path, **settings)


def loader_of(config: BlendConfig, **options: Any) -> DataLoader:
    return DataLoader(build_datasets(config).train, 4, **options)


def resumed(config: BlendConfig, before: DataLoader, **options: Any) -> DataLoader:
    loader = loader_of(config, **options)
    loader.load_state_dict(before.state_dict())
    return loader


def batches(loader: DataLoader, count: int) -> Batches:
    stream = iter(loader)
    return [(batch.input_ids, batch.labels) for batch in (next(stream) for _ in range(count))]


def are_equal(one: Batches, other: Batches) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) for each in pairs for a, b in zip(*each, strict=True))


def saved(loader: DataLoader) -> dict[str, Any]:
    return json.loads(loader.state_dict()[STATE_KEY])


def test_a_document_is_read_until_it_is_removed(config: BlendConfig) -> None:
    """Each part of the run reads what a run with its list reads, on any number of ranks."""
    lists = [removing(config, listed) for listed in ([], FIRST, FIRST + LATER)]
    whole = [batches(loader_of(each), 90) for each in lists]
    assert not are_equal(whole[0], whole[1])
    assert not are_equal(whole[1][60:], whole[2][60:])
    loader = loader_of(lists[0])
    parts = batches(loader, 30)
    for each in lists[1:]:
        loader = resumed(each, loader)
        parts += batches(loader, 30)

    assert are_equal(parts, whole[0][:30] + whole[1][30:60] + whole[2][60:])
    removals = removals_of(loader.dataset)
    assert [(each.first_slot, each.num_documents) for each in removals] == [(120, 3), (240, 5)]
    ranks = [resumed(lists[2], loader, dp_rank=rank, dp_world_size=2) for rank in range(2)]
    assert are_equal(batches(ranks[1], 5), batches(loader, 10)[1::2])
    assert removals_of(ranks[0].dataset) == removals


def test_the_last_samples_are_read_again_as_they_were(config: BlendConfig) -> None:
    """A change of the list is no change of the data: digests of both sides of it agree."""
    loader = loader_of(removing(config, FIRST))
    batches(loader, 50)
    removed = removing(config, FIRST + LATER)
    for _ in range(60):
        loader = resumed(removed, loader)
        batches(loader, 1)

    assert [each.first_slot for each in removals_of(loader.dataset)] == [0, 200]


def test_a_run_that_removes_nothing_saves_the_same_state_as_ever(config: BlendConfig) -> None:
    plain, empty = loader_of(config), loader_of(removing(config, []))

    assert saved(plain) == saved(empty)
    assert "removed" not in saved(plain)
    assert saved(loader_of(removing(config, FIRST)))["removed"][0]["num_documents"] == 3


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        (None, "blendcorpus.removed_documents is not set, but"),
        ([], "lists 0 documents, but"),
        (FIRST[:2], "lists 2 documents, but"),
        ([FIRST[1], FIRST[0], *FIRST[2:]], "lists 3 documents, but"),
        ([*LATER, *FIRST], "lists 5 documents, but"),
    ],
)
def test_a_removed_document_stays_removed(
    config: BlendConfig, listed: Listed | None, found: str
) -> None:
    before = loader_of(removing(config, FIRST))
    batches(before, 3)
    now = config if listed is None else removing(config, listed)
    message = f"{found} the checkpoint was trained without 3 documents from slot 0 on .* Restore"

    with pytest.raises(ResumeError, match=message):
        resumed(now, before)


def test_with_new_segment_a_list_may_be_replaced(
    config: BlendConfig, caplog: pytest.LogCaptureFixture
) -> None:
    before = loader_of(removing(config, FIRST))
    batches(before, 3)
    now = resumed(removing(config, LATER, on_change="new_segment"), before)
    plain = loader_of(removing(config, LATER))
    plain.consumed_samples = 12

    assert are_equal(batches(now, 60), batches(plain, 60))
    assert "does not extend: documents that it lacks are read again" in caplog.text
    assert [each.first_slot for each in removals_of(now.dataset)] == [0, 12]
    again = resumed(dataclasses.replace(config, on_change="new_segment"), now)
    assert [each.num_documents for each in removals_of(again.dataset)] == [3, 2, 0]


def test_the_log_says_what_is_removed_from_where(
    config: BlendConfig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        before = loader_of(removing(config, FIRST))
        batches(before, 3)
        resumed(removing(config, FIRST + LATER), before)

    assert "removes 3 documents of 3 shards (" in caplog.text
    assert "Removed documents from slot 12 on:\n  2 documents of " in caplog.text
    assert "later tokens of a sample attend to the EODs" in caplog.text


def test_samples_before_a_position_that_was_set_were_read_with_all_documents(
    config: BlendConfig,
) -> None:
    """Nothing claims that the other loader, which read them, left the documents out."""
    loader = loader_of(removing(config, FIRST))
    loader.set_consumed_by_global_step(5, 8)

    assert saved(loader)["removed"][0]["first_slot"] == 40


def test_skips_segments_and_a_change_of_data_keep_the_list(config: BlendConfig) -> None:
    """The run continues with longer windows, as a run does that always had the list."""
    longer = dataclasses.replace(config, seq_length=12, on_change="new_segment")
    found: list[Batches] = []
    for listed in (FIRST, FIRST + LATER):
        before = loader_of(removing(config, FIRST))
        changed = loader_of(removing(longer, listed))
        for loader in (before, changed):
            loader.set_skips([(8, 16)])
            loader.set_segments([Segment(20, {"code": 3.0})])
        batches(before, 3)
        changed.load_state_dict(before.state_dict())
        found.append(batches(changed, 60))

    assert are_equal(found[0], found[1]) is False
    tokens = [torch.cat([ids for ids, _ in each]) for each in found]
    differs = tokens[0] != tokens[1]
    assert (tokens[1][differs] == EOD).all()


def test_damaged_removals_in_a_state_are_an_error(config: BlendConfig) -> None:
    loader = loader_of(removing(config, FIRST))
    batches(loader, 3)
    state = saved(loader)
    (removal,) = state["removed"]
    for wrong in (3, [3], [removal, removal], [{**removal, "first_slot": 13}], [{"digest": ""}]):
        forged = {STATE_KEY: json.dumps(state | {"removed": wrong})}
        with pytest.raises(ResumeError, match="damaged removals"):
            loader_of(removing(config, FIRST)).load_state_dict(forged)


def test_grain_reads_the_same_samples(config: BlendConfig) -> None:
    """Also in another process, which gets the documents with the catalog."""
    removed = removing(config, FIRST + LATER)
    source = pickle.loads(pickle.dumps(BlendSource(removed, num_samples=200)))
    expected = batches(loader_of(removed), 50)

    for slot in range(200):
        row = source[slot]
        assert row.input_ids.tolist() == expected[slot // 4][0][slot % 4].tolist()
        assert row.labels.tolist() == expected[slot // 4][1][slot % 4].tolist()


class Model(nn.Module):
    """Two layers of attention with the loader's dense masks."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, 16)
        self.layers = nn.ModuleList(nn.Linear(16, 48) for _ in range(2))
        self.head = nn.Linear(16, 64)

    def forward(self, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits of every place."""
        x = self.embedding(input_ids)[:, None]
        for layer in self.layers:
            q, k, v = layer(functional.layer_norm(x, (16,))).chunk(3, dim=-1)
            x = x + functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.head(x[:, 0])


def trained(config: BlendConfig, replace_inputs: torch.Generator | None = None) -> list[Any]:
    """The weights after 30 steps. ``replace_inputs`` puts random tokens where no label is."""
    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loader = loader_of(config)
    for _, batch in zip(range(30), loader, strict=False):
        assert batch.attention_mask is not None
        inputs = batch.input_ids
        if replace_inputs is not None:
            free = batch.labels == IGNORE_INDEX
            # The EOD of the document before predicts nothing, but others attend to it.
            free[:, 1:] &= batch.labels[:, :-1] == IGNORE_INDEX
            free[:, 0] &= inputs[:, 0] == EOD
            random = torch.randint(3, 64, inputs.shape, generator=replace_inputs)
            inputs = torch.where(free, random, inputs)
        logits = model(inputs, batch.attention_mask)
        loss = functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


def test_a_removed_document_has_no_influence_on_the_weights(
    tmp_path: Path, write_shard: WriteShard
) -> None:
    """Weights are bit-identical whatever the documents contain, and whatever stands for them."""
    rng = np.random.default_rng(0)
    documents = [[*rng.integers(3, 64, size), EOD] for size in rng.integers(1, 20, 200)]
    gone = [5, 6, 17, 40, 41, 42, 99, 150, 199]
    changed = [list(document) for document in documents]
    for number in gone:
        changed[number] = [*rng.integers(3, 64, len(documents[number]) - 1), EOD]
    weights: list[list[Any]] = []
    for name, contents in (("a", documents), ("b", changed)):
        write_shard(f"{name}/web", contents)
        (tmp_path / f"{name}.txt").write_text(f"1 {name}/web web")
        config = BlendConfig(
            data_file_list=tmp_path / f"{name}.txt",
            eod_token_id=EOD,
            seq_length=32,
            split="1",
            provide_attention_mask=True,
        )
        config = removing(config, [("web", number) for number in gone])
        weights.append(trained(config))
        weights.append(trained(dataclasses.replace(config, removed_documents=None)))
    weights.append(trained(config, replace_inputs=torch.Generator().manual_seed(1)))

    removed_a, read_a, removed_b, read_b, random = weights
    same = [torch.equal(*each) for each in zip(removed_a, removed_b, strict=True)]
    assert all(same)
    assert all(torch.equal(*each) for each in zip(removed_a, random, strict=True))
    assert not torch.equal(read_a[0], read_b[0])


def test_the_path_of_a_list_is_checked() -> None:
    with pytest.raises(ConfigError, match="removed_documents is s3://list, which is a URL"):
        BlendConfig(data_file_list="x", seq_length=8, eod_token_id=2, removed_documents="s3://list")
