"""How pyiceberg reads and writes a table's metadata: through our storage, with its errors."""

from __future__ import annotations

from io import BytesIO
from types import TracebackType

from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile, OutputStream
from pyiceberg.typedef import EMPTY_DICT, Properties

from extract_jobs.storage import OpenStorage, open_storage

OPEN_STORAGE = "extract-jobs.open-storage"
"""Key of a catalog's property that holds an `OpenStorage`."""


class StorageFiles(FileIO):
    """Reads and writes objects as a whole: metadata and manifests are a few megabytes at most."""

    def __init__(self, properties: Properties = EMPTY_DICT) -> None:
        """Use the storage that the property `OPEN_STORAGE` opens, or that of the environment."""
        super().__init__(properties)
        self._open: OpenStorage = properties.get(OPEN_STORAGE) or open_storage

    def new_input(self, location: str) -> InputFile:
        """Return an object to read."""
        return _File(self._open, location)

    def new_output(self, location: str) -> OutputFile:
        """Return an object to write."""
        return _File(self._open, location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Delete an object; succeeds if there is none."""
        uri = location if isinstance(location, str) else location.location
        self._open(uri).delete(uri)


class _File(InputFile, OutputFile):
    def __init__(self, opens: OpenStorage, location: str) -> None:
        super().__init__(location)
        self._storage = opens(location)
        self._written: int | None = None

    def __len__(self) -> int:
        if self._written is not None:
            return self._written
        found = self._storage.head(self.location)
        if found is None:
            raise FileNotFoundError(self.location)
        return found.size

    def exists(self) -> bool:
        """Return whether there is an object."""
        return self._storage.head(self.location) is not None

    def open(self, seekable: bool = True) -> InputStream:  # noqa: ARG002
        """Return the whole object."""
        data = self._storage.read(self.location)
        if data is None:
            raise FileNotFoundError(self.location)
        return BytesIO(data)

    def create(self, overwrite: bool = False) -> OutputStream:  # noqa: ARG002
        """Return a stream that writes the object when it is closed.

        Names hold a random UUID, so nothing is there that could be overwritten.
        """
        return _Stream(self)

    def to_input_file(self) -> InputFile:
        """Return the object to read."""
        return self

    def write(self, data: bytes) -> None:
        """Write the whole object."""
        self._storage.put(self.location, data)
        self._written = len(data)


class _Stream(BytesIO):
    """Becomes an object when it is closed, unless an exception closes it."""

    def __init__(self, file: _File) -> None:
        super().__init__()
        self._file = file

    def close(self) -> None:
        if not self.closed:
            data = self.getvalue()
            super().close()
            self._file.write(data)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            super().close()
