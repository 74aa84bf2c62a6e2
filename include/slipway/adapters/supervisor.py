"""The slot runtime over Supervisor: one configuration file and one process group per slot.

The files are what survives a reboot; Supervisor starts every slot that has one. What really runs is asked
of Supervisor, and whether a running slot is still the one of its file too (`reloadConfig` compares the two).
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import time
import xmlrpc.client
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from slipway.errors import RuntimeSlotError
from slipway.ports import Package, Slot

__all__ = ["SupervisorRuntime"]

_GROUP = re.compile(r"^slot-([a-z][a-z0-9_]*)-(blue|green)$")
_NOTE = "; slipway: "
_BAD_NAME, _ALREADY_ADDED, _ALREADY_STARTED, _STILL_RUNNING = 10, 90, 60, 91
_UP = (10, 20)  # starting, running
_KEEP_ALIVE_SECONDS = 120  # longer than Envoy keeps an idle connection
_GRACEFUL_SECONDS = 15


class _Transport(xmlrpc.client.Transport):
    """HTTP with a time limit; the password travels in a header, so no message can show it."""

    def __init__(self, user: str, password: str, timeout_seconds: float) -> None:
        token = b64encode(f"{user}:{password}".encode()).decode()
        super().__init__(headers=[("Authorization", f"Basic {token}")])
        self._timeout_seconds = timeout_seconds

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(str(host), timeout=self._timeout_seconds)


class SupervisorRuntime:
    """Starts, stops and lists slots.

    Args:
        uri: Supervisor's HTTP address.
        slots_dir: the folder that supervisord.conf includes.
        command: the program before the bento's path, `[python, "-m", "bentoml", "serve"]`.
        environment: variables of every slot of a model, given its name.
    """

    def __init__(
        self,
        uri: str,
        password: str,
        *,
        slots_dir: Path,
        log_dir: Path,
        command: Sequence[str],
        environment: Callable[[str], Mapping[str, str]],
        host: str = "127.0.0.1",
        user: str = "slipway",
        timeout_seconds: float = 10.0,
    ) -> None:
        self._rpc_uri = f"{uri}/RPC2"
        self._user, self._password = user, password
        self._dir, self._logs = slots_dir, log_dir
        self._command, self._environment = tuple(command), environment
        self._host = host
        self._timeout_seconds = timeout_seconds
        self._agreed: dict[str, tuple[int, int]] | None = None

    # --- the port -----------------------------------------------------------------------------------------

    def start(self, slot: Slot, package: Package) -> None:
        """Run the package in the slot; what runs there already, and is the same, is left alone.

        Raises:
            RuntimeSlotError: Supervisor did not answer or refused.
        """
        group = _group(slot)
        self._write(group, self._render(slot, package))
        changes = self._reload()
        if group in changes["changed"]:
            self._remove(group, _GRACEFUL_SECONDS + 5)
        if group in changes["changed"] or group in changes["added"]:
            self._call("addProcessGroup", group, tolerate=(_ALREADY_ADDED,))
        else:
            self._call("startProcessGroup", group, False, tolerate=(_ALREADY_STARTED,))

    def stop(self, slot: Slot, drain_seconds: float) -> None:
        """Stop the slot: asked to end, and killed if it has not after `drain_seconds`; its file goes too.

        Raises:
            RuntimeSlotError: Supervisor did not answer or refused.
        """
        group = _group(slot)
        self._remove(group, drain_seconds)
        self._path(group).unlink(missing_ok=True)
        self._reload()

    def list(self) -> Sequence[Slot]:
        """Every slot that Supervisor knows or that has a file; `version` is None when the two disagree.

        Raises:
            RuntimeSlotError: Supervisor did not answer.
        """
        unsure = self._unsure()
        states = {info["group"]: info["state"] for info in self._call("getAllProcessInfo")}
        notes = {path.stem: _read_note(path) for path in sorted(self._dir.glob("slot-*.conf"))}
        found = []
        for group in sorted(set(notes) | set(states)):
            match = _GROUP.match(group)
            if match is None:
                continue
            note = {} if group in unsure else notes.get(group, {})
            found.append(
                Slot(
                    model=match[1],
                    slot="blue" if match[2] == "blue" else "green",
                    port=int(note.get("port", 0)),
                    version=note.get("version"),
                    bento_tag=note.get("bento_tag"),
                    running=states.get(group) in _UP,
                    host=self._host,
                )
            )
        return found

    # --- the file -----------------------------------------------------------------------------------------

    def _path(self, group: str) -> Path:
        return self._dir / f"{group}.conf"

    def _render(self, slot: Slot, package: Package) -> str:
        group = _group(slot)
        command = [
            *self._command,
            str(package.path),
            *("--host", self._host, "--port", str(slot.port), "--api-workers", "1"),
            *("--timeout-keep-alive", str(_KEEP_ALIVE_SECONDS)),
            *("--timeout-graceful-shutdown", str(_GRACEFUL_SECONDS)),
        ]
        variables = {
            **self._environment(slot.model),
            "SLIPWAY_MODEL": slot.model,
            "SLIPWAY_VERSION": package.version,
            "SLIPWAY_SLOT": slot.slot,
            # A package that was built anew under the same name is another program.
            "SLIPWAY_BENTO_DIGEST": package.digest,
        }
        note = {"port": slot.port, "version": package.version, "bento_tag": package.bento_tag}
        lines = {
            "command": _literal(shlex.join(command)),
            "environment": ",".join(f'{key}="{_variable(key, value)}"' for key, value in sorted(variables.items())),
            "autostart": "true",
            "autorestart": "true",
            "startsecs": "1",
            "startretries": "20",
            "stopsignal": "TERM",
            "stopwaitsecs": str(_GRACEFUL_SECONDS + 5),
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": _literal(str(self._logs / f"{group}.log")),
            "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": "2",
        }
        body = "\n".join(f"{key} = {value}" for key, value in lines.items())
        return f"{_NOTE}{json.dumps(note)}\n[program:{group}]\n{body}\n"

    def _write(self, group: str, content: str) -> None:
        path = self._path(group)
        if path.is_file() and path.read_text(encoding="utf-8") == content:
            return
        self._dir.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(f".{os.getpid()}.new")
        with aside.open("w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)

    # --- Supervisor -----------------------------------------------------------------------------------------

    def _unsure(self) -> set[str]:
        """Groups that run otherwise than their files say.

        Supervisor reads all of its files to tell, some ten milliseconds of its time. While the slots' files are those
        that it agreed with, it need not: nothing else can part the two.
        """
        paths = sorted(self._dir.glob("slot-*.conf"))
        files = {path.name: (found.st_mtime_ns, found.st_ino) for path in paths if (found := _stat(path))}
        if files == self._agreed:
            return set()
        changes = self._reload()
        unsure = changes["changed"] | changes["removed"]
        self._agreed = None if unsure else files
        return unsure

    def _reload(self) -> dict[str, set[str]]:
        """Groups that are new, changed or gone in the files, compared with what runs. It starts and stops nothing."""
        added, changed, removed = self._call("reloadConfig")[0]
        return {"added": set(added), "changed": set(changed), "removed": set(removed)}

    def _remove(self, group: str, drain_seconds: float) -> None:
        deadline = time.monotonic() + drain_seconds
        if self._call("stopProcessGroup", group, False, tolerate=(_BAD_NAME,)) is None:
            return
        while self._call("removeProcessGroup", group, tolerate=(_BAD_NAME, _STILL_RUNNING)) is None:
            if all(info["group"] != group for info in self._call("getAllProcessInfo")):
                return
            if time.monotonic() >= deadline:
                self._call("signalProcessGroup", group, "KILL", tolerate=(_BAD_NAME,))
                deadline += 1.0
            time.sleep(0.05)

    def _call(self, method: str, *arguments: Any, tolerate: Sequence[int] = ()) -> Any:
        """One remote call; None for a fault that is tolerated."""
        transport = _Transport(self._user, self._password, self._timeout_seconds)
        server = xmlrpc.client.ServerProxy(self._rpc_uri, transport=transport)
        try:
            return getattr(server.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode in tolerate:
                return None
            raise RuntimeSlotError(f"Supervisor: {method}: {fault.faultString}; see its log in {self._logs}") from fault
        except xmlrpc.client.ProtocolError as error:
            message = f"Supervisor refused {method} ({error.errcode}); is another one running on its port?"
            raise RuntimeSlotError(message) from error
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            message = f"Supervisor does not answer ({type(error).__name__}); start the stack with `slipway up`"
            raise RuntimeSlotError(message) from error
        finally:
            server("close")()


def _group(slot: Slot) -> str:
    return f"slot-{slot.model}-{slot.slot}"


def _literal(value: str) -> str:
    """Supervisor expands per cent signs."""
    return value.replace("%", "%%")


def _variable(name: str, value: str) -> str:
    if re.search(r'["\n\r]|\s[;#]', value):
        raise RuntimeSlotError(f"{name}: Supervisor cannot pass on a quote, a line break or a comment sign")
    return _literal(value)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None  # removed in this moment


def _read_note(path: Path) -> dict[str, Any]:
    try:
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        return dict(json.loads(first.removeprefix(_NOTE)))
    except (OSError, ValueError):
        return {}
