"""Finished trainings as versions of a registered model in MLflow, `blockqnn-<data set>`.

A version is a `torch.export` program: whoever loads it needs torch and MLflow alone, and nothing
pickled is run. What it means (block, classes, how images are normalised) stands in its tags, its
description and its metadata. The registry may be deleted and is written again from the trainings.

MLflow's functions for a whole process (`mlflow.set_tracking_uri`, `start_run`, `log_model`) are not
used: they would redirect whatever else in this process talks to MLflow.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from blockqnn.errors import SearchError
from blockqnn.network.weights import load_weights
from blockqnn.space import LONGEST, Block
from blockqnn.training.final.result import TrainingResult, read_result
from evaluation.drawing import draw_block

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

CHAMPION = "champion"
"""Alias of a registered model's best version, in `models:/blockqnn-digits@champion` for one."""

EXAMPLES = 2
"""Images in a model's example: traced with one, a program would take no other number of images."""


def model_name(data: str) -> str:
    """The registered model of the networks for a data set, which the plan calls `data`."""
    return f"blockqnn-{data}"


def register(
    uri: str, run_id: str, training: Path, *, tags: Mapping[str, str] | None = None
) -> str:
    """Make the network of a finished training a version of its data set's model; returns the
    version's number.

    A training is known by its identity, the tag `identity`: registered again, it is the version it
    was, so that a kill in between does no harm, and of its tags only `tags` change. `run_id` is the
    training's run, in whose experiment the network is kept; `tags` go on top of the training's own.

    One process at a time may do this with a database (`flows.tracking.store.database_lock`). Raises
    `SearchError` when the training has no network, and MLflow's or the system's errors.
    """
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    result = read_result(training)
    if result is None or result["outcome"] != "trained":
        state = "has not finished" if result is None else result["outcome"]
        raise SearchError(f"{training} has no network to register: it {state}")
    name, tags = model_name(result["data"]["label"]), dict(tags or {})
    query = f"name = '{name}' and tags.identity = '{result['identity']}'"
    if found := client.search_model_versions(query):
        version = str(min(int(each.version) for each in found))
        for key, value in tags.items():
            client.set_model_version_tag(name, version, key, value)
        return version
    _create_name(client, name)
    model = _logged(client, run_id, training, result)
    created = client.create_model_version(
        name,
        source=model.artifact_location,  # "models:" is looked up in the default database
        run_id=run_id,
        tags=_tags(result) | tags,
        description=_description(result),
        model_id=model.model_id,
    )
    return str(created.version)


def set_champion(uri: str, name: str, version: str) -> None:
    """Make a version of model `name` the one that `models:/<name>@champion` means."""
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=uri).set_registered_model_alias(name, CHAMPION, version)


def _create_name(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(
            name, description="Networks of searched blocks and what they are compared with."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _logged(
    client: MlflowClient, run_id: str, training: Path, result: TrainingResult
) -> LoggedModel:
    """The training's network as a model of its run, which a kill may have left there before."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    experiment = client.get_run(run_id).info.experiment_id
    query = f"source_run_id = '{run_id}' and tags.identity = '{result['identity']}'"
    for found in client.search_logged_models([experiment], query):
        if found.status == LoggedModelStatus.READY:
            return found
        client.delete_logged_model(found.model_id)  # its files are not all there
    model = client.create_logged_model(
        experiment, "network", run_id, _tags(result), model_type="classifier"
    )
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    with tempfile.TemporaryDirectory() as directory:
        _save_model(Path(directory) / "model", training, result, model)
        client.log_model_artifacts(model.model_id, f"{directory}/model")
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _save_model(to: Path, training: Path, result: TrainingResult, model: LoggedModel) -> None:
    """Save the files of an MLflow model, the weights and the block's drawing among them."""
    with warnings.catch_warnings():  # MLflow's of its own type hints
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType")
        import mlflow.pyfunc
    import mlflow.pytorch
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    network, metadata = load_weights(training / "weights.safetensors")
    example = _example(result)
    kind = np.dtype(np.float32)
    public = torch.__version__.partition("+")[0]  # the package index does not know builds
    signature = ModelSignature(
        inputs=Schema([TensorSpec(kind, (-1, *example.shape[1:]))]),
        outputs=Schema([TensorSpec(kind, (-1, len(result["data"]["classes"])))]),
    )
    with torch.no_grad():  # with gradients, concats are functions that other programs do not know
        mlflow.pytorch.save_model(
            network,
            to,
            mlflow_model=Model(
                artifact_path=model.artifact_location,
                model_id=model.model_id,
                run_id=model.source_run_id,
                model_uuid=model.model_id,
            ),
            signature=signature,
            input_example=example,
            pip_requirements=[f"torch=={public}", f"numpy=={np.__version__}"],
            metadata=metadata,
            serialization_format="pt2",
        )
    if result["block"] is not None:
        draw_block(Block.parse(result["block"], LONGEST), to / "block.svg", result["label"])


def _example(result: TrainingResult) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Images as the network takes them: noise in eighths, which are short in MLflow's JSON."""
    data = result["data"]
    shape = (EXAMPLES, data["in_channels"], data["image_size"], data["image_size"])
    noise = np.random.default_rng(0).standard_normal(shape)
    return (np.round(noise * 8) / 8).astype(np.float32)


def _tags(result: TrainingResult) -> dict[str, str]:
    tags = {
        "identity": result["identity"],
        "label": result["label"],
        "block": result["block"],
        "timm": result["timm"],
        "data": result["data"]["label"],
        "split": result["split"],
        "seed": result["seed"],
        "epochs": len(result["curve"]),
        "accuracy": result["accuracy"],
        "train_accuracy": result["curve"][-1].get("train_accuracy"),
        "parameters": result["parameters"],
        "macs": result["macs"],
        "commit": result["commit"],
    }
    return {name: str(value) for name, value in tags.items() if value is not None}


def _description(result: TrainingResult) -> str:
    data = result["data"]
    images = f"(N, {data['in_channels']}, {data['image_size']}, {data['image_size']})"
    subject = f"Block `{result['block']}`" if result["block"] else f"timm's `{result['timm']}`"
    mean, std = ([round(value, 4) for value in values] for values in (data["mean"], data["std"]))
    return (
        f"{subject}, trained on {data['train_images']:,} images of {data['name']} for "
        f"{len(result['curve'])} epochs with seed {result['seed']}.\n\n"
        f"Takes images {images} as float32, pixels from 0 to 1 normalised with mean {mean} and "
        f"deviation {std}; gives logits of {len(data['classes'])} classes."
    )
