"""`template.list`, and `sandbox.create` with a template: one that is held ready becomes its caller's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from immured.errors import ImmuredError
from immured.identity.actor import DEFAULT
from immured.identity.policy.warrant import Target
from immured.manifest.use import check_manifest
from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.manifests import admit_again
from immured.service.recorded import recorded
from immured.service.request import Answer, Request
from immured.service.sandboxes.arguments import parse_create
from immured.service.sandboxes.lifecycle import freeze, kill, write_record
from immured.service.sandboxes.sandbox import Restart
from immured.service.templates import pool  # noqa: F401 - before this process can read the package no more
from immured.wire.strict import take

__all__ = ["COMMANDS", "create_from_template"]

_OWN: Final = ("template", "name", "labels", "ttl_ms", "restart")


async def list_templates(service: Service, request: Request) -> Answer:
    """args: none. result: `templates`, those of the tenant, each with how many are ready."""
    take(request.command.args, "args", ())
    return Answer({"templates": service.templates.of(request.actor.tenant)})


async def create_from_template(service: Service, request: Request) -> Answer:
    """args: `template`, `name`, `labels`, `ttl_ms`, `restart`. result: `sandboxes`, the one row, with `waiting`: the
    `exec` that waits for an order, and `from`, where its output will begin."""
    from immured.service.commands.sandbox import check_ttl

    args, actor, config = request.command.args, request.actor, service.state.config
    fields = take(args, "args", ("template", *_CREATE))
    for name in fields.values:
        if name not in _OWN:
            raise fields.wrong(name, "is given, and `template` too", "a template says that; leave it out")
    template = service.templates.find(actor.tenant, fields.required("template", str))
    arguments = parse_create({name: value for name, value in args.items() if name != "template"})
    ttl_ms = config.sandboxes_ttl if arguments.ttl_ms is None else arguments.ttl_ms
    check_ttl(service, ttl_ms)
    service.shares.may_live(actor.tenant, ttl_ms)
    class_ = template.manifest.class_
    request.warrant.check(Target(actor.tenant, actor.project, actor.owners, class_, arguments.labels))
    check_manifest(template.manifest, actor.persona, actor.tenant)
    admit_again(service, request.warrant, template.manifest)
    if arguments.name is not None:
        service.sandboxes.check_name(actor.tenant, actor.project, arguments.name)
    warm = await service.templates.take(template, actor.tenant)
    sandbox = warm.sandbox

    async def act() -> tuple[Mapping[str, object], Mapping[str, object]]:
        with sandbox.still("handed over"):
            await freeze(service, sandbox, on=False)
        now = service.clock()
        sandbox.key_id, sandbox.uid, sandbox.persona = actor.key_id, actor.uid, actor.persona
        sandbox.owners = actor.owners
        warm.exec.key_id, warm.exec.uid = actor.key_id, actor.uid
        sandbox.labels = arguments.labels
        sandbox.restart = arguments.restart or Restart(config.sandboxes_on_restart)
        sandbox.created_ms, sandbox.expires_ms = now, now + ttl_ms
        try:
            service.launcher.extend(sandbox.number, ttl_ms * 1_000_000)
        except LookupError:
            raise sandbox.ended_meanwhile() from None
        service.shares.lives(sandbox.lease, ttl_ms)
        write_record(sandbox)
        waiting = {"exec": warm.exec.id, "from": warm.start}
        done = {"sandbox": sandbox.id, "exec": warm.exec.id, "template": template.name, "ttl_ms": ttl_ms}
        return {"sandboxes": [{**sandbox.to_map(), "waiting": waiting}]}, done

    try:
        sandbox.project = actor.project
        if arguments.name is not None:  # at once: who asks for the name meanwhile does not get it too
            service.sandboxes.give_name(sandbox, arguments.name)
        return await recorded(service, request, {"template": template.name, "sandbox": sandbox.id}, act)
    except ImmuredError:
        if request.acted:
            kill(service, sandbox, "it could not be handed over")
        else:
            service.sandboxes.take_name(sandbox)
            sandbox.project = DEFAULT
            service.templates.put_back(template, actor.tenant, warm)
        raise


_CREATE: Final = (
    "manifest",
    "parameters",
    "name",
    "labels",
    "ttl_ms",
    "limits",
    "env",
    "cwd",
    "files",
    "count",
    "restart",
    "snapshot",
)

COMMANDS: Final = (CommandSpec("template.list", "template.list", list_templates),)
