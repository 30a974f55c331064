"""Ray's handlers of failures: installed at a moment of our choosing, and at once without the one of SIGTERM.

Ray installs them while it connects, once in a process: of SIGSEGV and the like, and of SIGTERM. That one prints a stack
trace, for which it reads the symbols of all libraries, and aborts the process after three seconds. To put Python's own
back as soon as a thread gets to it leaves moments, on a busy machine long ones, in which SIGTERM ends a command so.
"""

from __future__ import annotations

import ctypes
import signal

from ray import _raylet  # pyright: ignore[reportAttributeAccessIssue]

_INSTALL = "_ZN3ray6RayLog27InstallFailureSignalHandlerEPKcb"
"""`ray::RayLog::InstallFailureSignalHandler(const char *argv0, bool call_previous_handler)`"""
_ACTION_BYTES = 512


def install_failure_handlers() -> None:
    """Install them and put the handler of SIGTERM from before back, with no thread of Python's in between.

    Of a Ray without this function nothing is installed: it does so itself, a little later.
    """
    library = ctypes.PyDLL(_raylet.__file__)  # which is loaded; its functions are called without releasing the GIL
    install, sigaction = getattr(library, _INSTALL, None), ctypes.PyDLL(None).sigaction
    if install is None:
        return
    action = ctypes.create_string_buffer(_ACTION_BYTES)
    sigaction(signal.SIGTERM, None, action)
    install(None, False)
    sigaction(signal.SIGTERM, action, None)
