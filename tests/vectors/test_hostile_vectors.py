"""Vector files: damaged or hostile, they end in errors of ours, and soon."""

import io
import json
import pickle
import random
import zipfile

import numpy as np
import pytest
import torch
from hostile import damaged, ours, variants
from safetensors.numpy import save
from safetensors.torch import save as save_torch
from worlds import FINGERPRINT, TRAITS, VECTORS, loaded, rule, world

from guardrail.errors import VectorError
from guardrail.vectors.formats import export_vector, import_vectors
from guardrail.vectors.values import TraitVectors


def parts(content):
    """The metadata and the tensors of a safetensors file."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size])["__metadata__"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return world(tmp_path_factory.mktemp("world"))


def arrays():
    """The tensors of the file in `folder`."""
    return {
        f"{trait}/{part}": getattr(vector, part)
        for trait, vector in VECTORS.items()
        for part in ("steering", "probe", "offset")
    }


def test_no_header_ends_in_a_traceback(folder):
    metadata = parts((folder / "vectors.safetensors").read_bytes())
    path = folder / "hostile.safetensors"
    for text in variants(json.loads(metadata["header"])):
        if "\\u0000" in text:
            continue  # safetensors itself writes no such header
        path.write_bytes(save(arrays(), {**metadata, "header": text}))
        with ours(text[:1000]):
            loaded(folder, rule(threshold={"raw": 1.0}), vectors=str(path), calibration=None)


def test_no_damaged_file_ends_in_a_traceback(folder):
    content = (folder / "vectors.safetensors").read_bytes()
    path = folder / "hostile.safetensors"
    for damage in [*damaged(content, 60), *damaged(content[:400], 60)]:
        path.write_bytes(damage)
        with ours(damage[:400]):
            TraitVectors.load(path)


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float64", "int64", "bool", "float8_e4m3fn"])
def test_only_float32_is_read(folder, kind):
    metadata = parts((folder / "vectors.safetensors").read_bytes())
    tensors = {name: torch.from_numpy(np.ones_like(array)) for name, array in arrays().items()}
    tensors["evil/probe"] = tensors["evil/probe"].to(getattr(torch, kind))
    (folder / "kind.safetensors").write_bytes(save_torch(tensors, metadata))
    with pytest.raises(VectorError, match="numbers have the type"):
        TraitVectors.load(folder / "kind.safetensors")


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (3.5, "`vectors.evil.layer`: input should be a valid integer"),
        ("x", "`vectors.evil.layer`"),
        (99, "layer 99 is not a usable layer"),
    ],
)
def test_a_layer_that_is_none_is_refused(folder, layer, said):
    metadata = parts((folder / "vectors.safetensors").read_bytes())
    header = json.loads(metadata["header"])
    header["vectors"]["evil"]["layer"] = layer
    (folder / "layer.safetensors").write_bytes(save(arrays(), {**metadata, "header": json.dumps(header)}))
    with pytest.raises(VectorError, match=said):
        TraitVectors.load(folder / "layer.safetensors")


def imported(path):
    return import_vectors({"evil": path}, FINGERPRINT)


@pytest.fixture(scope="module", params=[".pt", ".svec", ".gguf"])
def exported(request, tmp_path_factory):
    if request.param == ".gguf":
        pytest.importorskip("gguf")
    path = tmp_path_factory.mktemp("exported") / f"good{request.param}"
    export_vector(VECTORS, path, TRAITS[0])
    return path


def test_no_damaged_import_ends_in_a_traceback(exported):
    content, path = exported.read_bytes(), exported.with_stem("hostile")
    for damage in [*damaged(content, 100), *damaged(content[:600], 100), b"", b"\0" * 64]:
        path.write_bytes(damage)
        with ours(damage[:600]):
            imported(path)


def test_no_svec_ends_in_a_traceback(tmp_path):
    export_vector(VECTORS, tmp_path / "good.svec", TRAITS[0])
    path = tmp_path / "hostile.svec"
    for text in variants(json.loads((tmp_path / "good.svec").read_text())):
        path.write_text(text)
        with ours(text[:1000]):
            imported(path)


def rezipped(content, pickled):
    """A torch file with another pickle in it, and checksums that fit."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickled if name.endswith("data.pkl") else old.read(name))
    return made.getvalue()


def test_no_pickle_in_a_torch_file_ends_in_a_traceback(tmp_path):
    tensor = torch.from_numpy(VECTORS["evil"].steering)
    whole, old = io.BytesIO(), io.BytesIO()
    torch.save(tensor, whole)
    torch.save(tensor, old, _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(whole) as file:
        pickled = next(file.read(name) for name in file.namelist() if name.endswith("data.pkl"))
    hostile = [rezipped(whole.getvalue(), damage) for damage in damaged(pickled, 200)]
    path = tmp_path / "hostile.pt"
    for content in [*hostile, *damaged(old.getvalue()[:1500], 200), pickle.dumps([1])]:
        path.write_bytes(content)
        with ours(content[:600]):
            imported(path)


@pytest.mark.parametrize("make", ["sparse", "complex", "meta", "nested", "list", "empty", "int"])
def test_other_tensors_are_refused(tmp_path, make):
    plain = torch.ones(FINGERPRINT.layers + 1, FINGERPRINT.d_model)
    tensors = {
        "sparse": plain.to_sparse(),
        "complex": plain.to(torch.complex64),
        "meta": plain.to("meta"),
        "nested": [plain, [plain]],
        "list": [1.0],
        "empty": torch.ones(0),
        "int": plain.to(torch.int64),
    }
    torch.save(tensors[make], tmp_path / "x.pt")
    with pytest.raises(VectorError):
        imported(tmp_path / "x.pt")


def test_a_small_file_may_not_unpack_to_a_large_one(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as file:
        for i in range(5):
            file.writestr(f"x/data/{i}", b"\0" * (220 << 20), compresslevel=1)
    with pytest.raises(VectorError, match="unpacks to more than"):
        imported(tmp_path / "x.pt")


def test_random_bytes_are_no_vectors(tmp_path):
    for suffix in (".pt", ".svec", ".gguf"):
        for seed in range(20):
            (tmp_path / f"x{suffix}").write_bytes(
                b"GGUF"[: 4 * (seed % 2)] + random.Random(seed).randbytes(300)
            )
            with ours(suffix):
                imported(tmp_path / f"x{suffix}")
