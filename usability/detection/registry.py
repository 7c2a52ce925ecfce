"""All detectors, found by looking into `detectors/`: one more detector is one more file there."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from usability.detection import detectors
from usability.detection.detector import Detector

AnyDetector = Detector[Any, Any]


def _found() -> tuple[AnyDetector, ...]:
    names = sorted(module.name for module in iter_modules(detectors.__path__))
    return tuple(import_module(f"{detectors.__name__}.{name}").DETECTOR for name in names)


DETECTORS: tuple[AnyDetector, ...] = _found()
BY_NAME: dict[str, AnyDetector] = {detector.name: detector for detector in DETECTORS}
