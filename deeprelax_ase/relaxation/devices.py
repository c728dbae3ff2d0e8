"""Whether there may be a GPU, which torch takes a second to say."""

import ctypes
import os
import sys

_CUDA = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_ROCM = "/dev/kfd"


def may_have_gpu() -> bool:
    """Whether a driver of NVIDIA or AMD is there; torch may yet see no GPU."""
    if os.path.exists(_ROCM):  # noqa: PTH110 - one stat
        return True
    try:
        ctypes.CDLL(_CUDA)
    except OSError:
        return False
    return True
