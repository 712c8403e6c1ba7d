"""How good a classifier's outputs are: accuracy with its uncertainty, likelihood, calibration."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import Tensor

BINS = 15
"""Equal-width bins of the confidence in the calibration error, as in Guo et al. 2017."""
FEW = 6
"""Classes below which no top-5 accuracy is given: of five classes, all are among the first five."""


def wilson(hits: float, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion of `hits` in `total`, in percent.

    It stays within 0 and 100 and is not empty at the ends, as the normal interval would be.
    Raises `ValueError` unless 0 <= hits <= total and total > 0.
    """
    if not 0 <= hits <= total or total <= 0:
        raise ValueError(f"{hits} hits in {total}: give 0 to total hits, and a total above 0")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, square = hits / total, z * z / total
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * ((share * (1 - share) + square / 4) / total) ** 0.5
    # Rounding would miss 0 and 1 by a hair.
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    high = 1.0 if hits == total else min(1.0, middle + half)
    return 100 * low, 100 * high


class Tally:
    """Counts a classifier's outputs batch by batch, so that no test set has to fit in memory."""

    def __init__(self, classes: int) -> None:
        """Raises `ValueError` for fewer than two classes."""
        if classes < 2:
            raise ValueError(f"classes is {classes}: give 2 or more")
        self._classes = classes
        self._device = torch.device("cpu")
        self._confusion = torch.zeros(classes, classes, dtype=torch.int64)
        self._nll = torch.zeros((), dtype=torch.float64)
        self._top5 = torch.zeros((), dtype=torch.int64)
        self._bins = torch.zeros(3, BINS, dtype=torch.float64)
        self._not_finite = torch.zeros((), dtype=torch.int64)

    def add(self, logits: Tensor | np.ndarray[Any, Any], labels: Tensor | Sequence[int]) -> None:
        """Count a batch: logits or log probabilities `(N, classes)`, labels `(N,)`.

        Nothing is read back from the device before `result`. Of equal logits the first class wins.
        Raises `ValueError` for other shapes.
        """
        outputs = torch.as_tensor(logits).detach().double()
        targets = torch.as_tensor(labels).to(outputs.device, torch.int64)
        if outputs.ndim != 2 or outputs.shape[1] != self._classes:
            raise ValueError(f"logits are {tuple(outputs.shape)}: give (N, {self._classes})")
        if targets.shape != outputs.shape[:1]:
            raise ValueError(
                f"labels are {tuple(targets.shape)} for {len(outputs)} rows of logits: give as many"
            )
        self._to(outputs.device)
        self._not_finite += (~outputs.isfinite().all(dim=1)).sum()
        log_probabilities = outputs.log_softmax(dim=1)
        of_label = log_probabilities.gather(1, targets[:, None])
        self._nll -= of_label.sum()
        best, predicted = log_probabilities.max(dim=1)
        # max gives any of several equal ones on a GPU; the first of them is what argmax means here
        predicted = (log_probabilities == best[:, None]).to(torch.uint8).argmax(dim=1)
        cells = targets * self._classes + predicted
        counts = torch.bincount(cells, minlength=self._classes**2)
        self._confusion += counts.view(self._classes, self._classes)
        index = torch.arange(self._classes, device=outputs.device)
        ahead = (log_probabilities > of_label) | (
            (log_probabilities == of_label) & (index < targets[:, None])
        )
        self._top5 += (ahead.sum(dim=1) < 5).sum()
        confidence = best.exp()
        bins = (confidence * BINS).ceil().clamp(1, BINS).nan_to_num(1.0).long() - 1
        right = (predicted == targets).double()
        for row, values in enumerate((torch.ones_like(confidence), confidence, right)):
            self._bins[row].index_add_(0, bins, values)

    def _to(self, device: torch.device) -> None:
        if device != self._device:
            self._device = device
            for name in ("_confusion", "_nll", "_top5", "_bins", "_not_finite"):
                setattr(self, name, getattr(self, name).to(device))

    def result(self, names: Sequence[str]) -> dict[str, Any]:
        """The metrics of all batches, as plain values; `names` are those of the classes.

        images; top1 and top5 {value, low, high} (percent, 95 % Wilson intervals; top5 None for
        fewer than 6 classes); nll, the mean negative log likelihood in nats; ece, the expected
        calibration error over 15 equal-width bins of the confidence, in percent, and the bins
        themselves under calibration; per_class [{class, images, accuracy, low, high}], None where a
        class has no images; confusion [[count]], a row a true class, a column a predicted one.

        Raises `ValueError` when nothing was counted or outputs were not finite.
        """
        confusion = self._confusion.cpu()
        total = int(confusion.sum())
        if len(names) != self._classes:
            raise ValueError(f"{len(names)} names for {self._classes} classes: give one each")
        if total == 0:
            raise ValueError("no images were counted")
        if bad := int(self._not_finite):
            raise ValueError(f"the outputs of {bad} of {total} images are not finite")
        hits = confusion.diagonal().tolist()
        images = confusion.sum(dim=1).tolist()
        counts, confidence, right = self._bins.cpu()
        return {
            "images": total,
            "top1": _proportion(sum(hits), total),
            "top5": _proportion(int(self._top5), total) if self._classes >= FEW else None,
            "nll": float(self._nll) / total,
            "ece": 100 * float((confidence - right).abs().sum()) / total,
            "calibration": [
                {
                    "low": 100 * i / BINS,
                    "high": 100 * (i + 1) / BINS,
                    "images": int(count),
                    "confidence": 100 * float(confidence[i] / count) if count else None,
                    "accuracy": 100 * float(right[i] / count) if count else None,
                }
                for i, count in enumerate(counts)
            ],
            "per_class": [
                {"class": name, "images": n, **_of_class(k, n)}
                for name, k, n in zip(names, hits, images, strict=True)
            ],
            "confusion": confusion.tolist(),
        }


def _proportion(hits: int, total: int) -> dict[str, float]:
    low, high = wilson(hits, total)
    return {"value": 100 * hits / total, "low": low, "high": high}


def _of_class(hits: int, total: int) -> dict[str, float | None]:
    if total == 0:
        return {"accuracy": None, "low": None, "high": None}
    found = _proportion(hits, total)
    return {"accuracy": found["value"], "low": found["low"], "high": found["high"]}
