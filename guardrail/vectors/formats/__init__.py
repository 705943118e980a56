"""Imports trait vectors from the files of other tools, and exports them to those formats.

An import must be told what the files lack: the trait, the model and, if unusual, the number of the first
decoder block. An export reports what the other format cannot store. Nothing here unpickles objects.
"""

from guardrail.vectors.formats.exporting import Export, export_vector
from guardrail.vectors.formats.formats import FORMATS, VectorFormat, format_of
from guardrail.vectors.formats.importing import import_vectors
from guardrail.vectors.formats.refusal_direction import Place

__all__ = ["FORMATS", "Export", "Place", "VectorFormat", "export_vector", "format_of", "import_vectors"]
