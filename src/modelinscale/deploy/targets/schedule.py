"""A schedule: a command of the project at set times, by systemd, by cron or on Kubernetes."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from modelinscale.core.errors import NotSupportedYet, SpecError, UsageError
from modelinscale.core.files import write_bytes
from modelinscale.core.identity import identity
from modelinscale.core.units import Duration
from modelinscale.deploy.targets import Deployed, Rendered, Target
from modelinscale.deploy.targets._cron import every, times

LONGEST = 40
"""Letters of a project's name in the name of a CronJob, which may have 52."""
PROJECT = "/project"
"""Where the project lies in a container."""


class Schedule(Target):
    """Runs a command of the project at set times: as a systemd timer, a line of cron, or a CronJob of Kubernetes.

    A run that is still at work when the next is due is not doubled: systemd starts no second one, Kubernetes forbids it, and `mis run` waits for the other.
    """

    verb: Literal["run", "collect", "update"] = "run"
    """The command."""
    every: Annotated[Duration, Field(ge=60)] | None = None
    """How often; or ``cron``."""
    cron: str | None = None
    """When, as cron writes it: ``0 3 * * *`` is every day at 3:00."""
    form: Literal["systemd", "cron", "kubernetes"] = Field("systemd", alias="as")
    """What keeps the time."""
    image: str = Field("modelinscale:latest", min_length=1)
    """For Kubernetes: an image with this package and the extras that the project needs."""
    storage: str = Field("10Gi", pattern=r"^\d+(Mi|Gi|Ti)$")
    """For Kubernetes: the size of the volume that a local store lies on."""
    time_zone: str | None = None
    """For Kubernetes: the zone of the times (``Europe/Berlin``); left out: the cluster's."""

    @model_validator(mode="after")
    def _one_time(self) -> Self:
        if (self.every is None) == (self.cron is None):
            raise SpecError("a schedule needs one of `every` and `cron`.", fix="Write --every 1d, or --cron '0 3 * * *'.")
        if self.cron is not None:
            times(self.cron)
        return self

    def render(self, what: Deployed) -> Rendered:
        return {"systemd": self._systemd, "cron": self._cron, "kubernetes": self._kubernetes}[self.form](what)

    def apply(self, what: Deployed) -> str:
        if self.form == "kubernetes":
            raise NotSupportedYet("a cluster is not changed from here.", fix="Write the files with --out DIR, then `kubectl apply -f DIR`.")
        files = self.render(what).files
        if self.form == "cron":
            before = _crontab()
            after = _without(before, self._mark(what)) + files[f"{self._unit(what)}.cron"]
            if after != before:
                _crontab(after)
            return "the line is in this user's crontab"
        _systemctl("show-environment")  # refused where no session of this user is kept by systemd: then nothing is written
        service = _units() / f"{self._unit(what)}.service"
        if service.exists() and f"WorkingDirectory={_unit_path(what.file.parent)}\n" not in service.read_text(encoding="utf-8"):
            raise UsageError(f"{service} is of another project of that name.", fix="Give one of the two another `name` in its model.yaml.")
        for name, text in files.items():
            write_bytes(_units() / name, text.encode())
        _systemctl("daemon-reload")
        _systemctl("enable", "--now", f"{self._unit(what)}.timer")
        return f"{self._unit(what)}.timer is on, in {_units()}"

    def status(self, what: Deployed) -> str:
        if self.form == "kubernetes":
            return f"ask the cluster: `kubectl get cronjob {self._unit(what)}`"
        if self.form == "cron":
            return "in this user's crontab" if f"# {self._mark(what)}\n" in _crontab() else "not applied"
        timer = f"{self._unit(what)}.timer"
        if not (_units() / timer).exists():
            return "not applied"
        return _systemctl("list-timers", "--no-legend", timer).strip() or f"{timer} is written and not on"

    def undo(self, what: Deployed) -> str:
        if self.form == "kubernetes":
            raise NotSupportedYet("a cluster is not changed from here.", fix="`kubectl delete -f DIR` takes back what those files made.")
        if self.form == "cron":
            before = _crontab()
            after = _without(before, self._mark(what))
            if after != before:
                _crontab(after)
            return "the line is gone from this user's crontab" if after != before else "nothing was applied"
        unit, there = self._unit(what), [_units() / f"{self._unit(what)}{end}" for end in (".service", ".timer")]
        if not any(path.exists() for path in there):
            return "nothing was applied"
        _systemctl("disable", "--now", f"{unit}.timer")
        for path in there:
            path.unlink(missing_ok=True)
        _systemctl("daemon-reload")
        return f"{unit}.timer is off and removed"

    def _unit(self, what: Deployed) -> str:
        """The name of units, files and objects: letters that all of them take, and no more than a CronJob's name may have."""
        name = re.sub(r"[^a-z0-9]+", "-", what.name.lower()).strip("-")
        if name != what.name.lower() or len(name) > LONGEST:
            name = f"{name[: LONGEST - 9].rstrip('-')}-{identity(what.name)[:8]}"  # two names must not become one
        return f"mis-{name}-{self.verb}"

    def _mark(self, what: Deployed) -> str:
        return f"{self._unit(what)} of {what.file}"

    def _words(self, what: Deployed) -> list[str]:
        return [*what.command, self.verb, "--file", str(what.file), "--quiet"]

    def _systemd(self, what: Deployed) -> Rendered:
        unit, secrets = self._unit(what), _environment(what)
        words = " ".join(_unit_word(word) for word in self._words(what))
        service = ["[Unit]", f"Description=mis {self.verb} of {what.name}", "", "[Service]", "Type=oneshot", f"ExecStart={words}"]
        service.append(f"WorkingDirectory={_unit_path(what.file.parent)}")
        if what.secrets:
            service.append(f"EnvironmentFile={_unit_path(secrets)}")
        if what.memory_bytes is not None:
            service.append(f"MemoryMax={_allowed(what.memory_bytes)}")
        if self.cron is not None:
            when = [f"OnCalendar={times(self.cron).calendar}", "Persistent=true"]
        else:
            assert self.every is not None, "one of the two is given"
            when = ["OnActiveSec=0", f"OnUnitActiveSec={round(self.every)}"]
        timer = ["[Unit]", f"Description=mis {self.verb} of {what.name}, by time", "", "[Timer]", *when, "", "[Install]", "WantedBy=timers.target"]
        files = {f"{unit}.service": "\n".join(service) + "\n", f"{unit}.timer": "\n".join(timer) + "\n"}
        linger = "units of a user stop when the user leaves the machine, unless `loginctl enable-linger` was said once"
        return Rendered(files, (linger, *_secret_notes(what, secrets)))

    def _cron(self, what: Deployed) -> Rendered:
        secrets = _environment(what)
        loaded = f"set -a && . {shlex.quote(str(secrets))} && set +a && " if what.secrets else ""
        words = f"cd {shlex.quote(str(what.file.parent))} && {loaded}{shlex.join(self._words(what))}"
        line = f"{self._times()} {words}".replace("%", r"\%")  # which cron takes for the end of the line
        return Rendered({f"{self._unit(what)}.cron": f"# {self._mark(what)}\n{line}\n"}, _secret_notes(what, secrets))

    def _times(self) -> str:
        return times(self.cron).cron if self.cron is not None else every(self.every or 0).cron

    def _kubernetes(self, what: Deployed) -> Rendered:
        import yaml

        unit = self._unit(what)
        labels = {"app.kubernetes.io/name": "modelinscale", "app.kubernetes.io/instance": unit}
        mounts: list[dict[str, Any]] = [{"name": "file", "mountPath": f"{PROJECT}/model.yaml", "subPath": "model.yaml", "readOnly": True}]
        volumes: list[dict[str, Any]] = [{"name": "file", "configMap": {"name": unit}}]
        files: dict[str, Any] = {
            "configmap.yaml": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": unit, "labels": dict(labels)}, "data": {"model.yaml": what.text}}
        }
        notes = ["paths in model.yaml are those inside the container: rows and the store lie under /project"]
        if what.local_store is not None:
            inside = what.local_store.name if what.local_store.is_relative_to(what.file.parent) else str(what.local_store)
            mounts.append({"name": "store", "mountPath": f"{PROJECT}/{inside}" if not inside.startswith("/") else inside})
            volumes.append({"name": "store", "persistentVolumeClaim": {"claimName": unit}})
            spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": self.storage}}}
            files["claim.yaml"] = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": unit, "labels": dict(labels)}, "spec": spec}
        container: dict[str, Any] = {
            "name": "mis",
            "image": self.image,
            "command": ["mis", self.verb, "--file", f"{PROJECT}/model.yaml", "--json"],
            "workingDir": PROJECT,
            "env": [{"name": name, "valueFrom": {"secretKeyRef": {"name": unit, "key": name}}} for name in what.secrets],
            "volumeMounts": mounts,
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        if what.memory_bytes is not None:
            container["resources"] = {"requests": {"memory": str(what.memory_bytes)}, "limits": {"memory": str(_allowed(what.memory_bytes))}}
        pod = {"restartPolicy": "Never", "containers": [container], "volumes": volumes}
        files["cronjob.yaml"] = {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": unit, "labels": dict(labels)},
            "spec": {
                "schedule": self._times(),
                **({"timeZone": self.time_zone} if self.time_zone else {}),
                "concurrencyPolicy": "Forbid",
                "startingDeadlineSeconds": 600,
                "jobTemplate": {"spec": {"backoffLimit": 2, "template": {"metadata": {"labels": dict(labels)}, "spec": pod}}},
            },
        }
        if what.secrets:
            values = " ".join(f"--from-literal={name}=..." for name in what.secrets)
            notes.append(f"the secrets come from one of that name: kubectl create secret generic {unit} {values}")
        if what.secret_files:
            notes.append(f"files with secrets must be mounted where model.yaml says: {', '.join(what.secret_files)}")
        return Rendered({name: yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000) for name, value in files.items()}, tuple(notes))


def _environment(what: Deployed) -> Path:
    """The file that holds the values of the secrets on this machine; never written by us."""
    return what.file.parent / f".{what.name}.env"


def _secret_notes(what: Deployed, file: Path) -> tuple[str, ...]:
    if not what.secrets:
        return ()
    return (f"write the secrets into {file}, one NAME=value a line, for {', '.join(what.secrets)}; only you should read it (chmod 600)",)


def _allowed(memory_bytes: int) -> int:
    """What the process may take before it is ended: its budget, and a quarter for libraries and what the estimate misses."""
    return memory_bytes * 5 // 4


def _unit_word(word: str) -> str:
    """One word of a command line in a unit file."""
    plain = word.replace("%", "%%").replace("$", "$$").replace("\\", "\\\\").replace('"', '\\"')
    return plain if re.fullmatch(r"[\w@%+=:,./$-]+", plain) else f'"{plain}"'


def _unit_path(path: Path) -> str:
    return str(path).replace("%", "%%")


def _units() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def _systemctl(*words: str) -> str:
    return _done(["systemctl", "--user", *words], "systemd is not in charge of this user's session here")


def _crontab(text: str | None = None) -> str:
    """This user's crontab; with a text, what it is from now on."""
    if text is None:
        found = subprocess.run([_tool("crontab"), "-l"], capture_output=True, text=True, check=False)
        if found.returncode != 0 and "no crontab" not in found.stderr:
            raise UsageError(f"the crontab cannot be read: {found.stderr.strip()}.", fix="May this user use cron?")
        return found.stdout if found.returncode == 0 else ""
    return _done([_tool("crontab"), "-"], "cron refuses the line", text)


def _without(table: str, mark: str) -> str:
    """The crontab without our two lines."""
    lines = table.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    kept, skip = [], 0
    for line in lines:
        skip = 2 if line.rstrip("\n") == f"# {mark}" else max(skip - 1, 0)
        if not skip:
            kept.append(line)
    return "".join(kept)


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise NotSupportedYet(f"there is no {name} on this machine.", fix="Write the files with --out DIR and install them where it is.")
    return found


def _done(words: list[str], refused: str, text: str | None = None) -> str:
    found = subprocess.run([_tool(words[0]), *words[1:]], input=text, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise NotSupportedYet(f"{refused}: {found.stderr.strip()}.", fix="Write the files with --out DIR and install them by hand.")
    return found.stdout
