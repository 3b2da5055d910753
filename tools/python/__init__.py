"""Python for a model: a stateful interpreter for each trajectory.

The way of one call, in the backend `sandbox`:

    owner's process                                              processes behind walls
    PythonSession.call(code, seconds)   tool.py
      Pool.take() -> Slot               pool.py
        SandboxBackend.start()          sandbox/backend.py
          RemoteZygote     sandbox/owner.py   -- "a session" ->  ZygoteMain  sandbox/zygote.py
                                                                   | fork
          SandboxSession   sandbox/owner.py   -- "a worker" -->  Supervisor  sandbox/zygote.py
                                                                   | fork
      RemoteWorker.execute sandbox/remote.py  -- channel ----->  WorkerMain  sandbox/worker.py
                                                                 CellShell   sandbox/cells.py
        Transcript         sandbox/transcript.py
          displays, the end of the cell       <- channel ------  DisplaySink.show
          what it prints                      <- pipe ---------  CellStream.write
          CellOutput       output.py
    ToolResult

The backend `jupyter` has a `RemoteKernel` (jupyter/kernel_client.py) in the place of
`RemoteWorker`, and on the right jupyter/enclosed.py, which raises the walls, and jupyter/kernel.py.
What cells show is notebook.py's in both. `resource_monitor` (monitor.py) ends what passes a limit.

Words: *walls* surround a session, and a *tier* says which of them there are (walls/walls.py); the
*canary* is a file that the trial process of a tier must not be able to read (walls/self_test.py).
A *slot* is one of the interpreters that may live at once; its `session_dir` holds `work`, where
cells run, `home`, `tmp` and `shm`. An *orphan* is a process whose parent ended: its parent is the
supervisor then.
"""

from .backend import SessionLimits
from .tool import PythonSession, PythonTool

__all__ = ["PythonSession", "PythonTool", "SessionLimits"]
