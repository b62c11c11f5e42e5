"""What a vendor and its provider do with a resource, as far as `rules/*.json` say it: values that are refused, arguments that
make a new resource, what is read back otherwise than it was written, order in time, names that are taken.

Plain values in and out: `validate`, `plan`, `apply`, `read`, `data`; no protocol, no terraform. `provider.py` speaks with terraform,
`selfcheck.py` calls the same functions with every mistake that a rule is for.
"""

import copy
import json
import os
import re
import time
import uuid



class Unknown:
    """A value that is known after the apply; there is one, and a copy of it is the same."""

    def __copy__(self):
        return self

    def __deepcopy__(self, _):
        return self


UNKNOWN = Unknown()
# So long a resource takes that others must wait for: one that does not wait is made before it.
SLOW_S = float(os.environ.get("SPILLWAY_STANDIN_SLOW", "0.7"))
SPANS = {"s": 1, "m": 60, "h": 3600}


class Refused(Exception):
    """What the vendor or the provider says."""


def pick(value, path):
    """Values at a path: names of attributes, `*` for each element, `json` for what a text says."""
    if value is None or value is UNKNOWN:
        return
    if not path:
        yield value
        return
    step, _, rest = path.partition(".")
    if step == "json":
        if isinstance(value, str):
            yield from pick(json.loads(value), rest)
    elif step == "*":
        for element in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
            yield from pick(element, rest)
    elif isinstance(value, dict) and step in value:
        yield from pick(value[step], rest)


def is_given(value, name):
    """Whether an attribute or block has a value, known or not."""
    return isinstance(value, dict) and (value.get(name) is UNKNOWN or bool(value.get(name)))


def fits(state, wanted):
    """Whether attributes have these values; a text that begins with `~` is a pattern."""
    for path, value in (wanted or {}).items():
        found = next(pick(state, path), None)
        if isinstance(value, str) and value.startswith("~"):
            if not (isinstance(found, str) and re.search(value[1:], found)):
                return False
        elif found != value:
            return False
    return True


def same(one, other):
    """Whether two values say the same; texts of JSON are compared by what they say."""
    if one == other:
        return True
    if isinstance(one, str) and isinstance(other, str) and one[:1] in "[{" and other[:1] in "[{":
        try:
            return json.loads(one) == json.loads(other)
        except ValueError:
            return False
    return False


def seconds(text):
    return sum(int(number) * SPANS[unit] for number, unit in re.findall(r"(\d+)([smh])", text or "0s"))


class Cloud:
    def __init__(self, schema, rules, account, run="", principal="first"):
        self.schema, self.rules, self.account, self.run, self.principal = schema, rules, account, run, principal
        self.config = {}
        self.waited_for = {rule["first"] for rule in rules.get("order", [])} | {"time_sleep"}

    # What terraform asks.

    def validate(self, kind, config):
        said = []
        for rule in self.rules.get("values", []):
            if rule["type"] == kind and fits(config, rule.get("when")):
                said += [text for value in pick(config, rule["at"]) for text in self.wrong(rule, value)]
        return said

    def plan(self, kind, prior, proposed):
        """The planned state, and the attributes for whose sake a new resource is made."""
        block = self.schema["resource"][kind]
        planned = self.without_write_only(block, copy.deepcopy(proposed))
        if prior is None:
            return self.unknown(block, planned), []
        for name in planned:
            if same(prior.get(name), planned[name]):
                planned[name] = prior.get(name)
        changed = [name for name in planned if planned[name] != prior.get(name)]
        return planned, [name for name in changed if name in self.rules.get("force_new", {}).get(kind, [])]

    def apply(self, kind, prior, planned, config):
        if planned is None:
            return self.destroy(kind, prior)
        made = prior is None
        if made and kind in self.waited_for:
            time.sleep(SLOW_S)
        with self.account.opened() as data:
            if made and kind == "time_sleep":
                data["clock"] += seconds(config.get("create_duration"))
            state = self.filled(kind, copy.deepcopy(planned), data)
            key = self.key(kind, state)
            if made:
                self.may_be_made(kind, state, config, data)
                self.comes_in_order(kind, state, data)
                if key in data["objects"]:
                    raise Refused(f"{key} exists already")
                for name in self.names(kind, state):
                    if name in data["kept"] and not data["kept"][name].startswith("soft"):
                        raise Refused(f"the name {name} is not free: {data['kept'][name]}")
                    data["kept"].pop(name, None)
                if kind == "google_project_service":
                    data["apis"].setdefault(state["service"], data["clock"])
            self.read_back(kind, state, data)
            data["serial"] += 1
            known = data["objects"].get(key, {"born": data["clock"], "run": self.run})
            data["objects"][key] = {**known, "type": kind, "state": state}
            return state

    def read(self, kind, state):
        with self.account.opened() as data:
            there = data["objects"].get(self.key(kind, state))
            if there is None:
                return None
            for rule in self.rules.get("readers", []):
                if rule["type"] == kind and not any(
                    made["type"] == rule["role"] and fits(made["state"], {**rule["with"], rule["who"]: self.principal})
                    for made in data["objects"].values()
                ):
                    raise Refused(f"{kind}: {self.principal} may not read it: {rule['why']}")
            state = copy.deepcopy(there["state"])
            self.read_back(kind, state, data)
            return state

    def data(self, kind, config):
        with self.account.opened() as data:
            self.api_is_enabled(kind, data)
        block = self.schema["data"][kind]
        state = self.filled(kind, self.unknown(block, copy.deepcopy(config)), {"serial": 0}, self.schema["data"])
        for choice in self.rules.get("data_lists", {}).get(kind, []):
            kept = [entry for entry in choice["entries"] if self.passes(entry, config)]
            state[choice["at"]] = [entry["name"].format_map(self.placeholders(state)) for entry in kept]
        return state

    # Values.

    def wrong(self, rule, value):
        said = f"{rule['type']}.{rule['at']}: {str(value)[:160]}: {rule['why']}"
        if "pattern" in rule and isinstance(value, str) and not re.search(rule["pattern"], value):
            yield said
        if "not" in rule and isinstance(value, str) and re.search(rule["not"], value):
            yield said
        if "one_of" in rule and value not in rule["one_of"]:
            yield said
        if "range" in rule and not rule["range"][0] <= value <= rule["range"][1]:
            yield said
        if "max_length" in rule and len(value) > rule["max_length"]:
            yield said
        if "min_items" in rule and len(value) < rule["min_items"]:
            yield said
        if "has" in rule and isinstance(value, dict) and any(name not in value for name in rule["has"]):
            yield said
        if "any_of" in rule and not any(is_given(value, name) for name in rule["any_of"]):
            yield said

    def without_write_only(self, block, state):
        for name, attribute in block["attributes"].items():
            if attribute.get("write_only"):
                state[name] = None
        return state

    def unknown(self, block, state, nesting="single"):
        for name, attribute in block["attributes"].items():
            # Of a set's element nothing is made up that may be given: it would be another element.
            may_be_null = nesting == "set" and attribute.get("optional")
            if attribute.get("computed") and state.get(name) is None and not may_be_null:
                state[name] = UNKNOWN
        for name, inner in block["blocks"].items():
            for element in elements(state.get(name)):
                self.unknown(inner["block"], element, inner["nesting"])
        return state

    def placeholders(self, state):
        plain = {name: value for name, value in state.items() if isinstance(value, (str, int))}
        region = self.config.get("region") or plain.get("location") or plain.get("region") or "here"
        return Placeholders({**plain, "region": region, "principal": self.principal})

    def filled(self, kind, state, data, schemas=None, block=None, path=""):
        """With values where the vendor knows them."""
        block = block or (schemas or self.schema["resource"])[kind]
        known = self.rules.get("computed", {}).get(kind) or self.rules.get("data", {}).get(kind, {})
        # `id` first: others are made of it.
        for name, attribute in sorted(block["attributes"].items(), key=lambda item: item[0] != "id"):
            if state.get(name) is not UNKNOWN:
                continue
            at = f"{path}{name}"
            if at in known:
                value = known[at]
                placeholders = Placeholders({**self.placeholders(state), "serial": data["serial"]})
                state[name] = value.format_map(placeholders) if isinstance(value, str) else copy.deepcopy(value)
            else:
                state[name] = self.made_up(kind, name, attribute["type"], state)
        for name, inner in block["blocks"].items():
            for element in elements(state.get(name)):
                self.filled(kind, element, data, None, inner["block"], f"{path}{name}.")
        return state

    def made_up(self, kind, name, shape, state):
        if name == "id":
            owner = next((f"{state[key]}/" for key in ("resource_group_name", "storage_account_id") if isinstance(state.get(key), str)), "")
            own = next((state[key] for key in ("name", "bucket", "family") if isinstance(state.get(key), str)), uuid.uuid4().hex[:12])
            return f"{kind}/{owner}{own}"
        if name == "arn":
            return f"arn:aws:{kind}:{self.placeholders(state)['region']}:111122223333:{state['id']}"
        if shape == "string":
            return f"{name}-of-{state.get('id') or kind}"
        return {"number": 1, "bool": False, "dynamic": None}[shape] if isinstance(shape, str) else {} if shape[0] == "map" else []

    # What is read back.

    def read_back(self, kind, state, data):
        for rule in self.rules.get("read_back", []):
            if rule["type"] != kind or not fits(state, rule.get("when")):
                continue
            name = rule["at"]
            if "absent" in rule:
                if state.get(name) is None:
                    state[name] = rule["absent"].format_map(self.placeholders(state))
            elif "later" in rule:
                if data["later"]:
                    state[name] = rule["later"]
            else:
                text = json.loads(state[name])
                for found in pick(text, rule["in"]):
                    for key, value in rule.get("adds", {}).items():
                        found.setdefault(key, value)
                    for key, value in rule.get("drops", {}).items():
                        if found.get(key) == value:
                            del found[key]
                state[name] = json.dumps(text)

    # What is there.

    def key(self, kind, state):
        return f"{kind} {state['id']} in {self.placeholders(state)['region']}"

    def names(self, kind, state, region=None):
        """`region`: where it was made; else this provider's."""
        rule = self.rules.get("unique", {}).get(kind)
        if not rule:
            return []
        scope = {"region": region or self.placeholders(state)["region"]}.get(rule["scope"], rule["scope"])
        inside = [str(state.get(name)) for name in rule.get("in", [])]
        return [f"{kind} {'/'.join([scope, *inside, *(str(state.get(name)) for name in rule['by'])])}"]

    def may_be_made(self, kind, state, config, data):
        taken = {name: key for key, made in data["objects"].items() for name in self.names(made["type"], made["state"], key.rsplit(" in ", 1)[1])}
        for name in self.names(kind, state):
            if name in taken:
                raise Refused(f"{name} is taken by {taken[name]}")
        for rule in self.rules.get("account_values", []):
            if rule["type"] == kind and fits(config, rule.get("when")):
                for said in (text for value in pick(config, rule["at"]) for text in self.wrong(rule, value)):
                    raise Refused(said)
        for flag, value in self.rules.get("needs_config", {}).get(kind, {}).items():
            if self.config.get(flag) != value:
                raise Refused(f"{kind}: 403: the provider needs {flag} = {value}")
        self.namespace_is_registered(kind)
        self.api_is_enabled(kind, data)
        self.images_are_there(kind, state, data)
        for rule in self.rules.get("refers", []):
            if rule["type"] == kind:
                self.refers(rule, state, data)

    def namespace_is_registered(self, kind):
        namespaces = self.rules.get("namespaces")
        if not namespaces or kind not in namespaces["of"]:
            return
        registered = list(self.config.get("resource_providers_to_register") or [])
        if self.config.get("resource_provider_registrations") in (None, "legacy"):
            registered += namespaces["legacy"]
        if namespaces["of"][kind].lower() not in [name.lower() for name in registered]:
            raise Refused(f"{kind}: MissingSubscriptionRegistration: {namespaces['of'][kind]} is not registered")

    def api_is_enabled(self, kind, data):
        for beginning, names in self.rules.get("apis", {}).items():
            if not kind.startswith(beginning):
                continue
            for name in names:
                since = data["apis"].get(f"{name}.googleapis.com")
                if since is None or data["clock"] - since < 60:
                    raise Refused(f"{kind}: 403: {name}.googleapis.com has not been used in this project before or was enabled just now")
            return

    def images_are_there(self, kind, state, data):
        for rule in self.rules.get("images", []):
            if rule["type"] != kind:
                continue
            holders = [state]
            if "via" in rule:
                holders = [made["state"] for made in data["objects"].values() if made["type"] == rule["of"] and made["state"]["arn"] == state[rule["via"]]]
            ours = [rule["url"].format_map(self.placeholders(made["state"])) for made in data["objects"].values() if made["type"] == rule["registry"]]
            for image in (image for holder in holders for image in pick(holder, rule["at"])):
                if any(image.startswith(url) for url in ours) and image not in data["images"]:
                    raise Refused(f"{kind}: {rule['why']}: there is no image {image}")

    def refers(self, rule, state, data):
        """Something that is named must be there, for a while where the vendor learns of it slowly."""
        for text in (value for value in pick(state, rule["at"]) if isinstance(value, str)):
            for found in re.finditer(rule["pattern"], text):
                if "agents" in rule:
                    if found.group(1) not in data["agents"]:
                        raise Refused(f"{rule['type']}: 400: {text} does not exist: {rule['why']}")
                    continue
                old = [data["clock"] - made["born"] for made in data["objects"].values() if made["type"] == rule["of"] and made["state"].get(rule["by"]) == found.group(1)]
                if not old or max(old) < rule.get("age", 0):
                    raise Refused(f"{rule['type']}: {found.group(1)}: {rule['why']}")

    def comes_in_order(self, kind, state, data):
        now = [made for made in data["objects"].values() if made["run"] == self.run]
        for rule in self.rules.get("order", []):
            if rule["first"] == kind and fits(state, rule.get("which")):
                for made in now:
                    if made["type"] == rule["then"]:
                        raise Refused(f"{self.key(kind, state)} is made after a {rule['then']} that does not wait for it: {rule['why']}")
            if rule["then"] == kind:
                for made in now:
                    if made["type"] == rule["first"] and fits(made["state"], rule.get("which")) and data["clock"] - made["born"] < rule.get("settle", 0):
                        raise Refused(f"{self.key(kind, state)}: {rule['first']} is {data['clock'] - made['born']} s old: {rule['why']}")

    def destroy(self, kind, prior):
        with self.account.opened() as data:
            key = self.key(kind, prior)
            for rule in self.rules.get("destroy", []):
                if rule["type"] == kind and not fits(prior, rule.get("unless", {"id": None})):
                    self.destroyed(rule, key, prior, data)
            data["objects"].pop(key, None)
            return None

    def destroyed(self, rule, key, prior, data):
        why = rule["why"]
        if "keeps" in rule:
            for name in self.names(rule["type"], prior):
                data["kept"][name] = why
        elif "images" in rule:
            if any(image.startswith(prior[rule["images"]]) for image in data["images"]):
                raise Refused(f"{key}: {why}")
        elif "strangers" in rule:
            there = [stranger for stranger in data["strangers"] if stranger[0] == prior["name"]]
            features = next(pick(self.config, "features.*.resource_group.*.prevent_deletion_if_contains_resources"), True)
            if there and features:
                raise Refused(f"{key}: {why}: {there}")
            data["strangers"] = [stranger for stranger in data["strangers"] if stranger not in there]
        elif "last" in rule:
            same_owner = [made for other, made in data["objects"].items() if made["type"] == rule["type"] and other != key and made["state"][rule["last"]] == prior[rule["last"]]]
            name = prior[rule["last"]].rsplit("/", 1)[-1]
            used = [other for other, made in data["objects"].items() if made["type"].startswith(rule["used_by"]) and f'"{name}"' in json.dumps(made["state"])]
            if used and not same_owner:
                raise Refused(f"{key}: {why}: {used[0]}")

    @staticmethod
    def passes(entry, config):
        """Whether a list's entry has what the filters of a data source ask for."""
        for wanted in elements(config.get("filter")):
            if entry["has"].get(wanted["name"]) not in wanted["values"]:
                return False
        return True


class Placeholders(dict):
    def __missing__(self, name):
        return f"some-{name}"


def elements(value):
    if isinstance(value, dict):
        return [value]
    return [element for element in value or [] if isinstance(element, dict)] if isinstance(value, list) else []
