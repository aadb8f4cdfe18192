"""Small workloads of several tasks, which need no download: what ``--compress-workload`` calls by name.

``pitch`` alone takes another package, for the weights in it.
"""

from __future__ import annotations

from collections.abc import Mapping

EMBEDDED: Mapping[str, str] = {
    "diabetes": "compress.workloads.diabetes:diabetes",
    "pitch": "compress.workloads.pitch:pitch",
    "scenes-detection": "compress.workloads.detection:scenes_detection",
    "scenes-segmentation": "compress.workloads.scenes:scenes_segmentation",
    "sequence": "compress.workloads.sequence:sequence",
    "text": "compress.workloads.text:text",
}
"""Name to the function that builds the workload."""
