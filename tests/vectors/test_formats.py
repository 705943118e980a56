"""Foreign vector files: what goes through them and comes back, and what is refused on the way in."""

import json
import os
import pickle
import sys
from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from worlds import CALM

from guardrail.errors import VectorError
from guardrail.testing import hand_made_vectors, tiny_fingerprint
from guardrail.vectors.formats import FORMATS, Place, export_vector, import_vectors
from guardrail.vectors.formats.control_vectors import model_hint
from guardrail.vectors.values import TraitVector, TraitVectors, unit

LAYERS, WIDTH = 4, 8
MODEL = tiny_fingerprint(LAYERS, WIDTH)
SUFFIXES = tuple(one.suffix for one in FORMATS)

# away from zero, so that no row has zero norm
numbers = st.floats(2**-7, 100, width=32) | st.floats(-100, -(2**-7), width=32)
differences = arrays.arrays(np.float32, (LAYERS + 1, WIDTH), elements=numbers)


def trait_vector(rows, trait="evil", **keys):
    return replace(TraitVector.from_difference(trait, rows), **keys)


def vector_file(*vectors):
    base = hand_made_vectors((), MODEL)
    return TraitVectors({vector.trait: vector for vector in vectors}, base.provenance)


def random_rows(seed=0):
    return np.random.default_rng(seed).normal(size=(LAYERS + 1, WIDTH)).astype(np.float32)


def official(folder, tensor, name="evil_response_avg_diff.pt"):
    torch.save(tensor, folder / name)
    return folder / name


def control_vector(path, rows, architecture="controlvector"):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_uint32("controlvector.layer_count", len(rows))
    for name, row in rows.items():
        writer.add_tensor(name, row)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def svec(path, directions, **keys):
    data = {"model_type": "llama", "directions": directions, "explained_variances": {}, **keys}
    path.write_text(json.dumps(data))
    return path


def imported(path, **keys):
    return import_vectors({"evil": path}, MODEL, **keys)["evil"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@CALM
@given(rows=differences)
def test_what_is_written_comes_back_where_both_sides_can_use_it(tmp_path_factory, suffix, rows):
    path = tmp_path_factory.mktemp("files") / f"v{suffix}"
    made = trait_vector(rows)
    export_vector(vector_file(made), path)
    again = imported(path)
    usable = [layer for layer in range(1, LAYERS + 1) if again.usable(layer)]
    assert usable == {".pt": [1, 2, 3], ".gguf": [2, 3, 4], ".svec": [1, 2, 3, 4]}[suffix]
    assert np.array_equal(again.steering[usable], made.steering[usable])
    assert np.array_equal(again.probe[usable], unit(made.steering)[usable])
    assert not again.offset.any()


@pytest.mark.parametrize("suffix", SUFFIXES)
@CALM
@given(rows=differences)
def test_a_second_trip_changes_nothing_more(tmp_path_factory, suffix, rows):
    folder = tmp_path_factory.mktemp("files")
    export_vector(vector_file(trait_vector(rows)), folder / f"a{suffix}")
    once = imported(folder / f"a{suffix}")
    export_vector(vector_file(once), folder / f"b{suffix}")
    again = imported(folder / f"b{suffix}")
    assert again.unusable == once.unusable
    assert np.array_equal(again.steering, once.steering)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_an_official_file_has_layers_as_rows_and_no_use_for_the_last(tmp_path, dtype):
    tensor = torch.from_numpy(random_rows()).to(dtype)
    made = imported(official(tmp_path, tensor))
    assert made.steering.dtype == np.float32
    assert np.array_equal(made.steering, tensor.float().numpy())
    assert (made.unusable, made.layer) == ((LAYERS,), None)


def test_where_it_was_imported_from_is_known(tmp_path):
    path = official(tmp_path, torch.from_numpy(random_rows()), "evil_prompt_last_diff.pt")
    provenance = import_vectors({"evil": path}, MODEL).provenance
    source = provenance.imported["evil"]
    assert (source.file, source.format, source.first_block) == (path.name, "persona-vectors", None)
    assert len(source.sha256) == 64
    assert (provenance.method, provenance.position) == ("imported", "last_prompt_token")
    assert provenance.fingerprint == MODEL


def test_several_files_make_one_vector_file_that_loads(tmp_path):
    files = {
        "evil": official(tmp_path, torch.from_numpy(random_rows(1))),
        "humor": svec(tmp_path / "h.svec", {"1": random_rows(2)[2].tolist()}),
    }
    made = import_vectors(files, MODEL)
    made.save(tmp_path / "v.safetensors")
    again = TraitVectors.load(tmp_path / "v.safetensors")
    assert list(again) == ["evil", "humor"]
    assert again.provenance == made.provenance
    assert [layer for layer in range(LAYERS + 1) if again["humor"].usable(layer)] == [2]


class Harmful:
    def __reduce__(self):
        return os.mkdir, (os.environ["GUARDRAIL_TEST_HARM"],)


@pytest.mark.parametrize("save", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))])
def test_pickled_objects_are_refused_and_never_run(tmp_path, monkeypatch, save):
    monkeypatch.setenv("GUARDRAIL_TEST_HARM", str(tmp_path / "harm"))
    save(Harmful(), tmp_path / "evil.pt")
    with pytest.raises(VectorError, match=r"evil\.pt: it contains pickled Python objects"):
        imported(tmp_path / "evil.pt")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        ({"evil": torch.ones(2)}, "contains a dict, not one tensor"),
        (torch.ones(LAYERS, WIDTH), r"shape \[4, 8\], but this model needs \[5, 8\]"),
        (torch.ones(WIDTH), r"nothing says of which layer: give --layer"),
        (torch.ones(2, LAYERS, WIDTH), r"2 positions, -2 to -1: give one with --token, not None"),
        (torch.ones(1, LAYERS + 1, WIDTH), r"has 5 layers, but this model has 4"),
        (torch.ones(1, LAYERS, WIDTH + 1), r"shape \[9\], but the model's width is 8"),
        (torch.ones(LAYERS + 1, WIDTH + 1), r"this model needs \[5, 8\]"),
        (torch.ones(LAYERS + 1, WIDTH, dtype=torch.int64), "only floats"),
        (torch.full((LAYERS + 1, WIDTH), torch.nan), "NaN"),
        (torch.zeros(LAYERS + 1, WIDTH), "zero norm at layer 1, 2, 3"),
    ],
)
def test_an_official_file_of_another_kind_is_refused(tmp_path, thing, message):
    with pytest.raises(VectorError, match=message):
        imported(official(tmp_path, thing))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"no such format", b"\x00" * 200])
def test_files_of_no_format_are_refused_by_name(tmp_path, suffix, content):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(VectorError, match=f"broken{suffix}: (it |cannot be read as )"):
        imported(path)


def test_files_that_are_not_there_and_suffixes_that_nobody_writes(tmp_path):
    with pytest.raises(VectorError, match=r"none\.pt: cannot be read"):
        imported(tmp_path / "none.pt")
    with pytest.raises(VectorError, match=r"end in \.pt \(persona-vectors\), \.gguf .*, \.svec"):
        imported(tmp_path / "evil.pkl")


def test_a_control_vector_counts_blocks_from_zero(tmp_path):
    rows = random_rows()
    made = imported(control_vector(tmp_path / "c.gguf", {f"direction.{n}": rows[n] for n in (1, 2, 3)}))
    assert np.array_equal(made.steering[[2, 3, 4]], rows[[1, 2, 3]])
    assert made.unusable == (1, 4), "the first is missing, the last was read after the final norm"


def test_a_control_vector_of_the_generator_counts_from_one(tmp_path):
    rows = random_rows()
    path = control_vector(tmp_path / "c.gguf", {f"direction.{n}": rows[n] for n in (1, 2, 3)})
    made = import_vectors({"evil": path}, MODEL, first_block=1)
    assert np.array_equal(made["evil"].steering[[1, 2, 3]], rows[[1, 2, 3]])
    assert made.provenance.imported["evil"].first_block == 1


def test_half_precision_control_vectors_are_read(tmp_path):
    rows = random_rows().astype(np.float16)
    made = imported(control_vector(tmp_path / "c.gguf", {"direction.1": rows[1]}))
    assert np.array_equal(made.steering[2], rows[1].astype(np.float32))


@pytest.mark.parametrize(
    ("rows", "architecture", "message"),
    [
        ({"direction.1": np.ones(WIDTH, np.float32)}, "llama", "architecture is 'llama'"),
        ({"output.weight": np.ones(WIDTH, np.float32)}, "controlvector", "'output.weight'"),
        ({"direction.1": np.ones(WIDTH + 1, np.float32)}, "controlvector", r"shape \[9\]"),
        ({"direction.1": np.ones((2, WIDTH), np.float32)}, "controlvector", r"shape \[2, 8\]"),
        ({"direction.1": np.ones(WIDTH, np.int32)}, "controlvector", "stored as I32"),
        ({"direction.4": np.ones(WIDTH, np.float32)}, "controlvector", "layer 5 of a model with 4 layers"),
        (
            {"direction.1": np.ones(WIDTH, np.float32), "direction.01": np.ones(WIDTH, np.float32)},
            "controlvector",
            "same block number",
        ),
        ({}, "controlvector", "no direction"),
    ],
)
def test_a_gguf_file_that_is_no_control_vector_of_this_model_is_refused(
    tmp_path, rows, architecture, message
):
    with pytest.raises(VectorError, match=message):
        imported(control_vector(tmp_path / "c.gguf", rows, architecture))


@pytest.mark.parametrize("suffix", [".pt", ".gguf", ".svec"])
def test_a_folder_that_does_not_exist_is_said_before_anything_is_written(tmp_path, suffix):
    with pytest.raises(VectorError, match="there is no such folder"):
        export_vector(vector_file(trait_vector(random_rows())), tmp_path / "none" / f"a{suffix}")


def test_a_written_control_vector_is_what_llama_cpp_and_repeng_expect(tmp_path):
    vectors = vector_file(trait_vector(random_rows()))
    export_vector(vectors, tmp_path / "c.gguf")
    reader = gguf.GGUFReader(tmp_path / "c.gguf")
    names = {tensor.name: tensor for tensor in reader.tensors}
    assert sorted(names) == ["direction.1", "direction.2", "direction.3"], "llama.cpp refuses direction.0"
    for number in (1, 2, 3):
        tensor = names[f"direction.{number}"]
        assert (tensor.tensor_type.name, tuple(tensor.shape)) == ("F32", (WIDTH,))
        assert np.array_equal(tensor.data, vectors["evil"].steering[number + 1])
    assert reader.get_field("general.architecture").contents() == "controlvector"
    assert reader.get_field("controlvector.model_hint").contents() == "llama"
    assert reader.get_field("controlvector.layer_count").contents() == 3


@pytest.mark.parametrize(
    ("architecture", "hint"),
    [("LlamaForCausalLM", "llama"), ("Qwen2ForCausalLM", "qwen2"), ("GPT2LMHeadModel", "gpt2")],
)
def test_the_model_hint_is_the_model_type(architecture, hint):
    assert model_hint(replace(MODEL, architecture=architecture)) == hint


def test_an_svec_file_counts_blocks_from_zero_and_may_wrap_rows(tmp_path):
    rows = random_rows()
    flat = imported(svec(tmp_path / "a.svec", {str(n): rows[n].tolist() for n in range(LAYERS)}))
    nested = imported(svec(tmp_path / "b.svec", {str(n): [rows[n].tolist()] for n in range(LAYERS)}))
    assert np.array_equal(flat.steering, nested.steering)
    assert np.array_equal(flat.steering[1:], rows[:LAYERS])
    assert flat.unusable == (LAYERS,)


def test_an_svec_file_of_block_inputs_counts_from_one(tmp_path):
    rows = random_rows()
    path = svec(tmp_path / "a.svec", {str(n): rows[n].tolist() for n in range(LAYERS)})
    made = imported(path, first_block=1)
    assert np.array_equal(made.steering[1:LAYERS], rows[1:LAYERS])
    assert made.unusable == (LAYERS,)


def test_a_control_vector_needs_its_package(tmp_path, monkeypatch):
    path = control_vector(tmp_path / "c.gguf", {"direction.1": random_rows()[1]})
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(VectorError, match=r"pip install 'persona-guardrail\[gguf\]'"):
        imported(path)


@pytest.mark.parametrize(
    ("directions", "keys", "message"),
    [
        ({"1": [1.0] * WIDTH}, {"num_heads": 4}, "attention heads"),
        ({"1": [[1.0] * WIDTH] * 2}, {}, "has 2 rows"),
        ({"one": [1.0] * WIDTH}, {}, "'one'"),
        ({"1": "text"}, {}, "not a list of numbers"),
        ({"1": [1.0, [2.0]]}, {}, "not a list of numbers"),
        ({"1": [1.0] * WIDTH, "01": [1.0] * WIDTH}, {}, "same block number"),
        ({"1": [1e300] * WIDTH}, {}, "NaN or infinite"),
        ([], {}, "no `directions`"),
        ({"3": [1.0] * WIDTH}, {}, "no layer of the file can be used"),
    ],
)
def test_an_svec_file_of_another_kind_is_refused(tmp_path, directions, keys, message):
    with pytest.raises(VectorError, match=message):
        imported(svec(tmp_path / "a.svec", directions, **keys))


def test_an_svec_file_has_what_its_own_readers_ask_for(tmp_path):
    export_vector(vector_file(trait_vector(random_rows())), tmp_path / "a.svec")
    data = json.loads((tmp_path / "a.svec").read_text())
    assert data["model_type"] == "llama"
    assert sorted(data["directions"]) == ["0", "1", "2", "3"]
    assert all(len(row) == WIDTH for row in data["directions"].values())
    assert data["explained_variances"] == {}


def test_numbering_has_to_fit_the_format(tmp_path):
    path = official(tmp_path, torch.from_numpy(random_rows()))
    with pytest.raises(VectorError, match=r"rows of a \.pt file are layers"):
        imported(path, first_block=0)
    with pytest.raises(VectorError, match="must be 0 or 1, not 2"):
        imported(control_vector(tmp_path / "c.gguf", {"direction.1": random_rows()[1]}), first_block=2)
    with pytest.raises(VectorError, match=r"layer 0 of a model.*counted from 0"):
        imported(control_vector(tmp_path / "d.gguf", {"direction.0": random_rows()[1]}), first_block=1)


def test_an_export_says_what_is_lost(tmp_path):
    rows = random_rows()
    made = trait_vector(rows, layer=2, offset=np.ones(LAYERS + 1, np.float32))
    found = {suffix: export_vector(vector_file(made), tmp_path / f"v{suffix}").lost for suffix in SUFFIXES}
    for lost in found.values():
        assert any("provenance" in line for line in lost)
        assert any("probe and its offsets" in line for line in lost)
        assert any("choice of layer 2" in line for line in lost)
    assert any("layer 4 is usable" in line for line in found[".pt"])
    assert any("layer 1" in line for line in found[".gguf"])
    assert any("row 0" in line for line in found[".svec"])
    assert not any("row 0" in line for line in found[".pt"])


def test_an_export_says_that_read_outs_are_lost(tmp_path):
    made = replace(trait_vector(random_rows()), position="user_mean")
    for suffix in SUFFIXES:
        lost = export_vector(vector_file(made), tmp_path / f"v{suffix}").lost
        assert any("what the probe reads" in line for line in lost)


def test_an_export_names_every_layer_that_it_leaves_out_or_whose_mark_is_lost(tmp_path):
    made = replace(trait_vector(random_rows()), unusable=(2, 4))
    found = {suffix: export_vector(vector_file(made), tmp_path / f"v{suffix}").lost for suffix in SUFFIXES}
    for suffix in (".gguf", ".svec"):
        assert "the layers that cannot be used: 2, 4" in found[suffix]
    assert "that these layers cannot be used: 2" in found[".pt"]
    assert not any("is usable" in line for line in found[".pt"])


def test_a_plain_vector_loses_no_probe(tmp_path):
    export = export_vector(vector_file(trait_vector(random_rows())), tmp_path / "v.svec")
    assert not any("probe" in line for line in export.lost)


def test_an_export_of_several_traits_has_to_name_one_and_overwrites_nothing(tmp_path):
    vectors = vector_file(trait_vector(random_rows(1)), trait_vector(random_rows(2), "humor"))
    path = tmp_path / "v.gguf"
    with pytest.raises(VectorError, match="choose one of evil, humor"):
        export_vector(vectors, path)
    with pytest.raises(VectorError, match="no vector for the trait `envy`"):
        export_vector(vectors, path, "envy")
    assert export_vector(vectors, path, "humor").trait == "humor"
    with pytest.raises(VectorError, match="exists"):
        export_vector(vectors, path, "evil")
    assert np.array_equal(imported(path).steering[2], vectors["humor"].steering[2])


def test_layers_that_cannot_be_used_are_not_written_where_a_file_can_do_without(tmp_path):
    vectors = vector_file(trait_vector(random_rows(), unusable=(3,)))
    export_vector(vectors, tmp_path / "v.svec")
    assert imported(tmp_path / "v.svec").unusable == (3,)
    only_first = vector_file(trait_vector(random_rows(), unusable=(2, 3, 4)))
    with pytest.raises(VectorError, match="no usable layer from 2 on"):
        export_vector(only_first, tmp_path / "v.gguf")


# --- the refusal-direction project ------------------------------------------------------------------------


def chosen(folder, layer, pos):
    (folder / "direction_metadata.json").write_text(json.dumps({"pos": pos, "layer": layer}))


def test_one_direction_is_of_the_layer_that_its_project_chose(tmp_path):
    row = random_rows()[2]
    torch.save(torch.from_numpy(row).double(), tmp_path / "direction.pt")
    chosen(tmp_path, 3, -2)
    made = imported(tmp_path / "direction.pt")
    assert made.layer == 3
    assert [layer for layer in range(LAYERS + 1) if made.usable(layer)] == [3]
    assert np.array_equal(made.steering[3], row)
    assert imported(tmp_path / "direction.pt", place=Place(layer=LAYERS)).layer == LAYERS


def test_a_table_of_positions_gives_every_layer_but_the_last(tmp_path):
    """Their layer n is the input of block n, which is our layer n; n = 0 is the embedding output."""
    table = np.stack([random_rows(seed)[:LAYERS] for seed in range(3)])
    (tmp_path / "generate_directions").mkdir()
    path = tmp_path / "generate_directions" / "mean_diffs.pt"
    torch.save(torch.from_numpy(table), path)
    made = imported(path, place=Place(token=-2))
    assert np.array_equal(made.steering[:LAYERS], table[1])
    assert (made.unusable, made.layer) == ((LAYERS,), None)
    chosen(tmp_path, 2, -3)
    made = imported(path)
    assert np.array_equal(made.steering[:LAYERS], table[0])
    assert made.layer == 2


@pytest.mark.parametrize(
    ("metadata", "place", "match"),
    [
        ("{}", {}, r"direction_metadata\.json: needs the whole numbers `pos` and `layer`"),
        ("no json", {}, "cannot be read as JSON"),
        ('{"pos": -1, "layer": 0}', {}, "layer 0 does not exist; layers are 1 to 4"),
        ('{"pos": -1, "layer": 5}', {}, "layer 5 does not exist"),
    ],
)
def test_a_place_that_does_not_exist_is_an_error(tmp_path, metadata, place, match):
    torch.save(torch.ones(WIDTH), tmp_path / "direction.pt")
    (tmp_path / "direction_metadata.json").write_text(metadata)
    with pytest.raises(VectorError, match=match):
        imported(tmp_path / "direction.pt", place=Place(**place))


def test_a_place_is_for_tensors_that_lack_one(tmp_path):
    files = [
        official(tmp_path, torch.from_numpy(random_rows())),
        svec(tmp_path / "h.svec", {"1": random_rows(2)[2].tolist()}),
        control_vector(tmp_path / "c.gguf", {"direction.1": random_rows()[1]}),
    ]
    for path in files:
        with pytest.raises(VectorError, match=r"are for \.pt tensors of one or three dimensions"):
            imported(path, place=Place(layer=2))
