"""Models as content-addressed blobs: kept in a directory, offered by a holder, pulled in chunks, verified.

The receiver drives: it asks for a few chunks at a time, takes every chunk of its blob that it sees (asked for by
itself or by a neighbour), asks again for what did not come, and resumes from its `.part` file after any break. The
holder answers each request once for all: a chunk that is on its way to everybody who listens is not sent again.
"""

from megace2_iot.blobs.holder import Holder
from megace2_iot.blobs.puller import BlobGone, HolderSilent, Puller
from megace2_iot.blobs.store import Blob, BlobStore, chunk_tag, digest

__all__ = ["Blob", "BlobGone", "BlobStore", "Holder", "HolderSilent", "Puller", "chunk_tag", "digest"]
