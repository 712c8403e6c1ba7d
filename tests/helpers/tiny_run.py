"""The files of finished final trainings, written by hand for tests that train nothing."""

import hashlib
import json

from blockqnn.zoo import BLOCKS

CLASSES = ["cat", "dog", "horse"]
S, RESIDUAL = str(BLOCKS["S"]), str(BLOCKS["residual"])


def result(label, seed=0, split="everything", block=None, timm=None, **changes):
    """What a training's result.json says, two epochs long."""
    epochs = [
        {
            "epoch": epoch,
            "loss": 1.0 / epoch,
            "train_accuracy": 60.0 + 10 * epoch,
            "learning_rate": 0.1,
            "seconds": 900.0,
            "images_per_second": 50.0 * epoch,
            **({"accuracy": 50.0 + 10 * epoch} if split == "train" else {}),
        }
        for epoch in (1, 2)
    ]
    content = {
        "version": 1,
        "label": label,
        "block": block,
        "timm": timm or (None if block else label),
        "split": split,
        "seed": seed,
        "outcome": "trained",
        "reason": "",
        "curve": epochs,
        "accuracy": epochs[-1].get("accuracy"),
        "parameters": 1_500,
        "macs": 2_000_000,
        "seconds": 1800.0,
        "device": "a small GPU",
        "devices": 1,
        "precision": "float32",
        "data": {
            "label": "pets",
            "name": "folder",
            "classes": CLASSES,
            "in_channels": 3,
            "image_size": 32,
            "fingerprint": "f1f2",
            "train_images": 1_200,
            "held_out_images": 300 if split == "train" else 0,
        },
        "network": {"skeleton": "cifar", "filters": [4, 8], "repeats": 1} if block else None,
        "recipe": {"epochs": 2, "batch": 32},
        "finished": 1_795_000_000.0,
        "commit": "abc123",
        "versions": {"blockqnn": "0.1.0", "torch": "2.14.1"},
        "of a later version": {"unknown": True},
        **changes,
    }
    settings = json.dumps([label, seed, split, content["recipe"], content["data"]["fingerprint"]])
    return {"identity": hashlib.sha256(settings.encode()).hexdigest(), **content}


def name_of(content):
    """The directory of a training."""
    parts = [content["label"], content["split"], content["seed"], content["identity"][:8]]
    return "-".join(str(part).replace("/", "-") for part in parts)


def evaluation(content, hits=(80, 70, 60), milliseconds=2.0, classes=CLASSES):
    """What evaluations/<id>.json says: `hits` of 100 images a class; the others went astray to the
    next class."""
    count = len(classes)
    confusion = [[0] * count for _ in classes]
    for i, right in enumerate(hits):
        confusion[i][i] = right
        confusion[i][(i + 1) % count] = 100 - right
    speed = {"device": "a small GPU", "threads": None, "precision": "float32"}
    accuracy = sum(hits) / count
    return {
        "version": 1,
        **{key: content[key] for key in ("label", "block", "timm", "seed", "split", "identity")},
        "test": {
            "images": 100 * count,
            "size": 32,
            "top1": {"value": accuracy, "low": accuracy - 5, "high": accuracy + 5},
            "top5": None,
            "nll": 0.5,
            "ece": 2.0,
            "calibration": [
                {"low": 0, "high": 50, "images": 0, "confidence": None, "accuracy": None},
                {"low": 50, "high": 100, "images": 300, "confidence": 75.0, "accuracy": 70.0},
            ],
            "per_class": [
                {"class": name, "images": 100, "accuracy": h, "low": h - 9, "high": h + 9}
                for name, h in zip(classes, hits, strict=True)
            ],
            "confusion": confusion,
        },
        "larger": None,
        "parameters": content["parameters"],
        "macs": content["macs"],
        "speed": [
            {
                **speed,
                "batch": 1,
                "milliseconds": milliseconds,
                "low": milliseconds / 2,
                "high": milliseconds * 2,
                "images_per_second": 1000 / milliseconds,
            },
            {
                **speed,
                "batch": 64,
                **dict.fromkeys(("milliseconds", "low", "high", "images_per_second")),
                "reason": "out of memory",
            },
        ],
        "of a later version": [],
    }


def write(run, *contents, hits=None):
    """Writes results into a run's directory, evaluated with `hits` unless that is None."""
    for content in contents:
        directory = run / "trainings" / name_of(content)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "job.json").write_text("{}")
        (directory / "result.json").write_text(json.dumps(content))
        if hits is not None:
            (run / "evaluations").mkdir(exist_ok=True)
            path = run / "evaluations" / f"{name_of(content)}.json"
            path.write_text(json.dumps(evaluation(content, hits)))
    return run


def whole_run(run):
    """Two blocks and a timm model with two seeds each, and a selection of two."""
    contenders = [
        result("block-1", split="train", block=S, seconds=360.0),
        result("block-2", split="train", block=RESIDUAL, seconds=720.0),
    ]
    write(run, *contenders)
    for seed, hits in enumerate([(80, 70, 60), (90, 70, 65)]):
        write(run, result("winner", seed, block=S), hits=hits)
        write(run, result("residual", seed, block=RESIDUAL, macs=1_000_000), hits=(60, 60, 60))
        write(run, result("resnet18", seed, macs=9_000_000), hits=(70, 60, 50))
    ranking = [
        {
            **{key: c[key] for key in ("label", "block", "parameters", "macs", "seconds")},
            "rank": rank,
            "number": 10 + rank,
            "accuracy": 80.0 - rank,
            "id": name_of(c),
        }
        for rank, c in enumerate(contenders, start=1)
    ]
    winner = {"block": S, "accuracy": 79.0, "number": 11}
    selection = {"version": 1, "search": "night", "ranking": ranking, "winner": winner}
    (run / "selection.json").write_text(json.dumps(selection))
    return run
