"""What lies in deploy/ fits the product: its flows, its files, its variables."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.arguments import COMMANDS
from pipelines.plan_parts import SchedulePart

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
PREFECT: dict[str, Any] = yaml.safe_load((DEPLOY / "prefect.yaml").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


@pytest.mark.parametrize("deployment", PREFECT["deployments"], ids=lambda d: str(d["name"]))
def test_a_deployment_names_a_flow_and_its_parameters(deployment: dict[str, Any]) -> None:
    from prefect import Flow

    from pipelines.arrivals import EVENT, resource_of

    module, _, name = deployment["entrypoint"].rpartition(".")
    flow = getattr(import_module(module), name)
    assert isinstance(flow, Flow)
    known = set(inspect.signature(flow.fn).parameters)
    asked = [deployment, *deployment["schedules"], *deployment["triggers"]]
    assert all(set(part["parameters"]) <= known for part in asked)
    for schedule in deployment["schedules"]:
        SchedulePart(cron=schedule["cron"], timezone=schedule["timezone"]).check()
    for trigger in deployment["triggers"]:
        assert trigger["expect"] == [EVENT]
        assert trigger["match"] == {"prefect.resource.id": resource_of("credit")}
    assert (
        deployment["work_pool"]["name"] in (DEPLOY / "prefect.yaml").read_text().split("pull:")[0]
    )


def test_the_image_holds_what_the_lock_says_and_its_user_has_no_rights() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    sources = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    assert sources
    assert all((ROOT / source).exists() for source in sources)
    install = next(line for line in lines if "pip install" in line)
    assert "--constraint requirements.lock" in install
    users = [number for number, line in enumerate(lines) if line.startswith("USER ")]
    assert len(users) == 1
    assert lines[users[0]] != "USER root"
    assert users[0] > lines.index(install)
    entry = next(line for line in lines if line.startswith("ENTRYPOINT"))
    assert entry == 'ENTRYPOINT ["sanitize"]'


def test_the_services_fit_each_other() -> None:
    services = COMPOSE["services"]
    assert all(set(s.get("depends_on", ())) <= set(services) for s in services.values())
    built = [s["build"] for s in services.values() if "build" in s]
    assert {(DEPLOY / b["context"] / b["dockerfile"]).resolve() for b in built} == {
        DEPLOY / "Dockerfile"
    }
    command = re.search(r"sanitize (\w+)", " ".join(services["sanitize"]["entrypoint"]))
    assert command is not None
    assert command[1] in COMMANDS
    # No port but to this machine, for the page has no password.
    ports = [port for s in services.values() for port in s.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
