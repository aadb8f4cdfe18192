"""Networks as graphs: captured by torch.export, written as ``.pt2`` or ``.onnx``, run without their source code."""

from compress.exported.archive import from_archive as from_archive
from compress.exported.archive import to_archive as to_archive
from compress.exported.capture import capture as capture
from compress.exported.model import ExportedModel as ExportedModel
