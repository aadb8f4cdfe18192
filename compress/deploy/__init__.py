"""A model as a folder that runs where there is no PyTorch: file, program, labels, examples and a check."""

from compress.deploy.folder import FORMATS as FORMATS
from compress.deploy.folder import export as export
