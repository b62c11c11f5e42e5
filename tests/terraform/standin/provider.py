"""A provider without a vendor, which terraform starts and speaks the plugin protocol with: `init`, `validate`, `test` with
mock_provider (which asks it for the schema and for what is wrong), and `plan`, `apply` and `destroy` in an account that is a file.

usage: provider.py SCHEMA.json RULES.json
environment: SPILLWAY_STANDIN_ACCOUNT    the account's file (see account.py); without it nothing is remembered
             SPILLWAY_STANDIN_RUN        which command of terraform this is
             SPILLWAY_STANDIN_PRINCIPAL  who applies
"""

import json
import os
import sys

import msgpack
import tf.provider
from tf.gen import tfplugin_pb2 as pb
from tf.gen import tfplugin_pb2_grpc as rpc

from account import Account
from cloud import UNKNOWN, Cloud, Refused

NESTING = {
    "single": pb.Schema.NestedBlock.SINGLE,
    "list": pb.Schema.NestedBlock.LIST,
    "set": pb.Schema.NestedBlock.SET,
    "map": pb.Schema.NestedBlock.MAP,
}
# `write_only` is field 11 of the protocol since terraform 1.11, and younger than the stubs of the package.
WRITE_ONLY = bytes([11 << 3, 1])


def attribute(name, known):
    made = pb.Schema.Attribute(
        name=name,
        type=json.dumps(known["type"]).encode(),
        required=known.get("required", False),
        optional=known.get("optional", False),
        computed=known.get("computed", False),
    )
    if known.get("write_only"):
        made.MergeFromString(WRITE_ONLY)
    return made


def block(known):
    return pb.Schema.Block(
        attributes=[attribute(name, inner) for name, inner in known["attributes"].items()],
        block_types=[
            pb.Schema.NestedBlock(
                type_name=name,
                nesting=NESTING[inner["nesting"]],
                min_items=inner["min"],
                max_items=inner["max"],
                block=block(inner["block"]),
            )
            for name, inner in known["blocks"].items()
        ],
    )


def schema(known):
    return pb.Schema(version=0, block=block(known))


# Values: terraform packs them by msgpack, a value whose type is open together with its type.


def unpacked(value, known):
    if value.json:
        return opened(json.loads(value.json), known)
    if not value.msgpack:
        return None
    return opened(msgpack.unpackb(value.msgpack, ext_hook=lambda code, data: UNKNOWN, strict_map_key=False), known)


def opened(value, known):
    """Without the types of values whose type is open."""
    if not isinstance(value, dict):
        return value
    for name, inner in known["attributes"].items():
        found = value.get(name)
        if inner["type"] != "dynamic" or found is None or found is UNKNOWN:
            continue
        value[name] = found["value"] if isinstance(found, dict) and set(found) == {"value", "type"} else found[1]
    for name, inner in known["blocks"].items():
        for element in nested(value.get(name)):
            opened(element, inner["block"])
    return value


def packed(value, known):
    def shown(one):
        if one is UNKNOWN:
            return msgpack.ExtType(0, b"\0")
        raise TypeError(f"terraform has no such value: {one!r}")

    return pb.DynamicValue(msgpack=msgpack.packb(closed(value, known), default=shown))


def closed(value, known):
    if not isinstance(value, dict):
        return value
    value = dict(value)
    for name, inner in known["attributes"].items():
        found = value.get(name)
        value[name] = found
        if inner["type"] == "dynamic" and found is not None and found is not UNKNOWN:
            value[name] = [json.dumps(type_of(found)).encode(), found]
    for name, inner in known["blocks"].items():
        found = value.get(name)
        if isinstance(found, list):
            value[name] = [closed(element, inner["block"]) for element in found]
        elif isinstance(found, dict):
            value[name] = closed(found, inner["block"])
        elif found is None:
            value[name] = None if inner["nesting"] == "single" else []
    return value


def type_of(value):
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, list):
        return ["tuple", [type_of(element) for element in value]]
    if isinstance(value, dict):
        return ["object", {name: type_of(element) for name, element in value.items()}]
    return "string"


def nested(value):
    return value if isinstance(value, list) else [value] if isinstance(value, dict) else []


def told(*texts):
    return [pb.Diagnostic(severity=pb.Diagnostic.ERROR, summary=text) for text in texts]


class StandIn(rpc.ProviderServicer):
    def __init__(self, _provider):
        with open(sys.argv[1], encoding="utf-8") as file:
            self.known = json.load(file)
        with open(sys.argv[2], encoding="utf-8") as file:
            rules = json.load(file)
        account = Account(os.environ.get("SPILLWAY_STANDIN_ACCOUNT"))
        run, principal = os.environ.get("SPILLWAY_STANDIN_RUN", ""), os.environ.get("SPILLWAY_STANDIN_PRINCIPAL", "first")
        self.cloud = Cloud(self.known, rules, account, run, principal)

    def provider_schema(self):
        return next(iter(self.known["provider"].values()))

    def GetProviderSchema(self, request, context):
        return pb.GetProviderSchema.Response(
            provider=schema(self.provider_schema()),
            resource_schemas={name: schema(known) for name, known in self.known["resource"].items()},
            data_source_schemas={name: schema(known) for name, known in self.known["data"].items()},
        )

    def ValidateProviderConfig(self, request, context):
        return pb.ValidateProviderConfig.Response()

    def ValidateResourceConfig(self, request, context):
        config = unpacked(request.config, self.known["resource"][request.type_name])
        return pb.ValidateResourceConfig.Response(diagnostics=told(*self.cloud.validate(request.type_name, config)))

    def ValidateDataResourceConfig(self, request, context):
        return pb.ValidateDataResourceConfig.Response()

    def ConfigureProvider(self, request, context):
        self.cloud.config = unpacked(request.config, self.provider_schema()) or {}
        return pb.ConfigureProvider.Response()

    def UpgradeResourceState(self, request, context):
        known = self.known["resource"][request.type_name]
        state = opened(json.loads(request.raw_state.json), known)
        return pb.UpgradeResourceState.Response(upgraded_state=packed(state, known))

    def PlanResourceChange(self, request, context):
        known = self.known["resource"][request.type_name]
        prior, proposed = unpacked(request.prior_state, known), unpacked(request.proposed_new_state, known)
        planned, replaced = self.cloud.plan(request.type_name, prior, proposed)
        steps = [pb.AttributePath(steps=[pb.AttributePath.Step(attribute_name=name)]) for name in replaced]
        # As the real ones, which are built with the older kit: what is applied may differ from what was planned.
        return pb.PlanResourceChange.Response(planned_state=packed(planned, known), requires_replace=steps, legacy_type_system=True)

    def ApplyResourceChange(self, request, context):
        known = self.known["resource"][request.type_name]
        prior, planned = unpacked(request.prior_state, known), unpacked(request.planned_state, known)
        try:
            state = self.cloud.apply(request.type_name, prior, planned, unpacked(request.config, known))
        except Refused as refusal:
            # The state stays as it was: nothing, when it was to be made.
            return pb.ApplyResourceChange.Response(
                new_state=packed(prior, known), diagnostics=told(str(refusal)), legacy_type_system=True
            )
        return pb.ApplyResourceChange.Response(new_state=packed(state, known), legacy_type_system=True)

    def ReadResource(self, request, context):
        known = self.known["resource"][request.type_name]
        try:
            state = self.cloud.read(request.type_name, unpacked(request.current_state, known))
        except Refused as refusal:
            return pb.ReadResource.Response(diagnostics=told(str(refusal)))
        return pb.ReadResource.Response(new_state=packed(state, known))

    def ReadDataSource(self, request, context):
        known = self.known["data"][request.type_name]
        try:
            state = self.cloud.data(request.type_name, unpacked(request.config, known))
        except Refused as refusal:
            return pb.ReadDataSource.Response(diagnostics=told(str(refusal)))
        return pb.ReadDataSource.Response(state=packed(state, known))

    def GetFunctions(self, request, context):
        return pb.GetFunctions.Response()

    def StopProvider(self, request, context):
        return pb.StopProvider.Response()


if __name__ == "__main__":
    tf.provider.ProviderServicer = StandIn

    from tf.runner import run_provider  # it binds the servicer when it is called

    run_provider(None)
