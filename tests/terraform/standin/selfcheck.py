"""Every rule finds the mistake that it is for, and lets pass what was done about it: `cases.json`, without terraform. Of rules
about values each one must have found something.

usage: selfcheck.py SCHEMAS RULES CASES.json     folders with aws.json, google.json, azurerm.json, time.json
"""

import json
import sys
from pathlib import Path

import cloud as module
from account import Account
from cloud import Cloud, Refused


def full(block, given):
    """A configuration as terraform hands it over: every attribute and block is there."""
    state = {name: given.get(name) for name in block["attributes"]}
    for name, inner in block["blocks"].items():
        value = given.get(name)
        if value is None:
            state[name] = None if inner["nesting"] == "single" else []
        elif inner["nesting"] == "single":
            state[name] = full(inner["block"], value)
        else:
            state[name] = [full(inner["block"], element) for element in (value if isinstance(value, list) else [value])]
    unknown = [name for name in given if name not in block["attributes"] and name not in block["blocks"]]
    if unknown:
        raise KeyError(f"no such argument: {unknown}")
    return state


class Terraform:
    def __init__(self, cloud):
        self.cloud, self.states = cloud, []

    def step(self, step):
        cloud = self.cloud
        if "config" in step:
            cloud.config = step["config"]
        if "account" in step:
            with cloud.account.opened() as data:
                data.update(step["account"])
        cloud.run = step.get("run", cloud.run)
        cloud.principal = step.get("principal", cloud.principal)
        try:
            if "validate" in step:
                return "; ".join(cloud.validate(step["validate"], self.config(step["validate"], step["with"]))) or "ok"
            if "make" in step:
                return self.make(step["make"], step.get("with", {}))
            if "read" in step:
                cloud.data(step["read"], full(cloud.schema["data"][step["read"]], {}))
            if "again" in step:
                return self.again(step["again"], step.get("with"))
            if "destroy" in step:
                kind, _, state = self.states[step["destroy"]]
                cloud.apply(kind, state, None, None)
        except Refused as refusal:
            return str(refusal)
        return "ok"

    def config(self, kind, given):
        return full(self.cloud.schema["resource"][kind], given)

    def make(self, kind, given):
        config = self.config(kind, given)
        wrong = self.cloud.validate(kind, config)
        if wrong:
            return "; ".join(wrong)
        planned, _ = self.cloud.plan(kind, None, config)
        self.states.append((kind, given, self.cloud.apply(kind, None, planned, config)))
        return "ok"

    def again(self, number, given):
        """The next plan of what was made, with the same configuration or another one."""
        kind, first, _ = self.states[number]
        prior = self.cloud.read(kind, self.states[number][2])
        block = self.cloud.schema["resource"][kind]
        proposed = full(block, first if given is None else given)
        for name, attribute in block["attributes"].items():
            if attribute.get("computed") and proposed[name] is None:
                proposed[name] = prior[name]
        planned, replaced = self.cloud.plan(kind, prior, proposed)
        return f"replaced for {', '.join(replaced)}" if replaced else "changed" if planned != prior else "no change"


class WatchedCloud(Cloud):
    """Notes which rules about values have found something."""

    broken = set()

    def wrong(self, rule, value):
        for said in super().wrong(rule, value):
            self.broken.add(json.dumps(rule))
            yield said


def main(schemas, rules, cases):
    module.SLOW_S = 0
    load = lambda path: json.loads(Path(path).read_text(encoding="utf-8"))
    known = {path.stem: load(path) for path in Path(schemas).glob("*.json")}
    # What refers to something of another provider finds it in the same account.
    merged = {kind: {name: block for one in known.values() for name, block in one[kind].items()} for kind in ("resource", "data")}
    all_rules = {path.stem: load(path) for path in Path(rules).glob("*.json")}
    found, wrong = set(), []
    for case in load(cases):
        found |= set(case["finding"].split())
        terraform = Terraform(WatchedCloud(merged, {**all_rules[case["provider"]]}, Account()))
        for number, step in enumerate(case["steps"]):
            said = terraform.step(step)
            expected = step.get("says", "ok")
            if expected not in said if expected not in ("ok", "no change", "changed") else expected != said:
                wrong.append(f"{case['finding']} ({case['case']}), step {number}: {said!r}, not {expected!r}")
    named = {name for one in all_rules.values() for rule in one_rules(one) for name in rule["finding"].split()}
    wrong += [f"no case for the rule of {name}" for name in sorted(named - found)]
    values = [rule for one in all_rules.values() for part in ("values", "account_values") for rule in one.get(part, [])]
    wrong += [f"no case breaks {rule}" for rule in values if json.dumps(rule) not in WatchedCloud.broken]
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{len(load(cases))} cases")


def one_rules(rules):
    for part in rules.values():
        if isinstance(part, list):
            yield from part
        elif isinstance(part, dict):
            for inner in part.values():
                if isinstance(inner, list):
                    yield from (rule for rule in inner if isinstance(rule, dict) and "finding" in rule)


if __name__ == "__main__":
    main(*sys.argv[1:])
