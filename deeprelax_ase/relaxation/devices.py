"""What is known of devices without torch, which takes a second to import."""

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


def limit_torch(threads: int) -> None:
    """Let torch use no more threads, whether it is there already or comes later."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch = sys.modules.get("torch")
    if torch:
        torch.set_num_threads(min(torch.get_num_threads(), threads))
