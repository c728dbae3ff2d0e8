"""Keep BLAS and torch to one thread where the work is small: their threads wait for each other."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from threadpoolctl import ThreadpoolController


class OneThread:
    """Limits the BLAS libraries and torch to one thread while somebody is within.

    BLAS has one number of threads in a process: the last of several to leave restores it. Torch has
    one in each thread.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew, as in a forked process, where nobody is within."""
        self._lock = Lock()
        self._within = 0
        self._libraries: Any = None
        self._limit: Any = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """One thread within."""
        with self._lock:
            if self._libraries is None:  # once numpy and scipy are loaded
                self._libraries = ThreadpoolController().select(user_api="blas")
            if not self._within:
                self._limit = self._libraries.limit(limits=1)
            self._within += 1
        torch = sys.modules.get("torch")  # whoever has not imported it needs it not
        before = torch.get_num_threads() if torch else 1
        if torch:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch:
                torch.set_num_threads(before)
            with self._lock:
                self._within -= 1
                if not self._within:
                    self._limit.restore_original_limits()


one_thread = OneThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=one_thread.forget)
