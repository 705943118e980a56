"""Trait vectors in other tools' files: read into ours with their provenance, and written from ours.

What the other files lack has to be said when reading: the trait, the model, and where it is not the usual
one the number of the first decoder block. What ours has and theirs cannot hold is said when writing.
Nothing here unpickles objects.
"""

from guardrail.vectors.formats.exporting import Export, export_vector
from guardrail.vectors.formats.formats import FORMATS, VectorFormat, format_of
from guardrail.vectors.formats.importing import import_vectors

__all__ = ["FORMATS", "Export", "VectorFormat", "export_vector", "format_of", "import_vectors"]
