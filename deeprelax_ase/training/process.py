"""What a training process asks of its operating system."""

import ctypes
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def check_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        ValueError: It is not.
    """
    if device == "cuda" and not torch.cuda.is_available():
        msg = "device is 'cuda', but torch sees no CUDA device: choose 'cpu'"
        raise ValueError(msg)


@contextmanager
def patient_interrupt() -> Iterator[threading.Event]:
    """Note Ctrl-C, to be obeyed between two steps; a second one is obeyed at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(signum: int, frame: Any) -> None:
        if asked.is_set():
            signal.default_int_handler(signum, frame)
        asked.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def leave_interrupts_to_the_parent(_: int) -> None:
    """Ignore Ctrl-C in a process that builds graphs; torch passes its number."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory: returning tens of MB a layer doubles the time of a step."""
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, (1 << 31) - 1)
    mallopt(top_pad, 1 << 26)
