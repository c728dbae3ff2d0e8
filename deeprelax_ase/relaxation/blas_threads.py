"""Keep BLAS to one thread where matrices are small: its threads wait for each other."""

import os
from threading import Lock
from types import TracebackType
from typing import Any

from threadpoolctl import ThreadpoolController


class OneBlasThread:
    """Limits the BLAS libraries of the process to one thread while somebody is within.

    The number of threads belongs to the process, so that the last of several to leave restores it.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew, as in a forked process, where nobody is within."""
        self._lock = Lock()
        self._within = 0
        self._libraries: Any = None
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._libraries is None:  # once numpy and scipy are loaded
                self._libraries = ThreadpoolController().select(user_api="blas")
            if not self._within:
                self._limit = self._libraries.limit(limits=1)
            self._within += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            self._within -= 1
            if not self._within:
                self._limit.restore_original_limits()


ONE_BLAS_THREAD = OneBlasThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=ONE_BLAS_THREAD.forget)
