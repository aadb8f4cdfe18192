"""Small workloads of several tasks, which need no download: what ``--compress-workload`` calls by name.

``pitch`` alone takes another package, for the weights in it.
"""

from __future__ import annotations

from collections.abc import Mapping

EMBEDDED: Mapping[str, str] = {
    "diabetes": "compress.workload.diabetes:diabetes",
    "pitch": "compress.workload.pitch:pitch",
    "scenes-detection": "compress.workload.detection:scenes_detection",
    "scenes-segmentation": "compress.workload.scenes:scenes_segmentation",
    "sequence": "compress.workload.sequence:sequence",
    "text": "compress.workload.text:text",
}
"""Name to the function that builds the workload."""
