"""A Windows server without Windows: it interprets what a document asks, strictly, over a model of a machine."""

from sandbox.windows.host import WindowsHost
from sandbox.windows.machine import ADMINISTRATORS, REMOTE_DESKTOP_USERS, Machine, MachineOffError

__all__ = ["ADMINISTRATORS", "REMOTE_DESKTOP_USERS", "Machine", "MachineOffError", "WindowsHost"]
