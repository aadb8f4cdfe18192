"""Networks this package ships: the ones its recipes and tables are about."""

from compress.models.googlenet import googlenet as googlenet
