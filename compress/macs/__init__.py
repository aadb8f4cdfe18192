"""Multiply-accumulates: the one count that techniques aim at and the gate holds them to."""

from compress.macs.counting import Macs as Macs
from compress.macs.counting import macs_of as macs_of
