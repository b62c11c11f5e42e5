//! A container group as it is asked for: its name, and the body of the request. Pure. Fields are those of api-version 2023-05-01.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::options::AciOptions;
use crate::labels;
use crate::launcher::{CLAIM, LaunchOrder};

/// Name of the runner's container in its group.
pub(super) const CONTAINER: &str = "runner";
/// The variable that the runner reads instead of its standard input.
const HANDOVER: &str = "SPILLWAY_HANDOVER";
/// Azure's resolver as every virtual network reaches it.
const NAME_SERVER: &str = "168.63.129.16";

/// One to sixty-three lower-case letters, digits and hyphens, as Azure requires. Egress ids that differ in case or beyond 30
/// characters differ in the hash.
pub(super) fn name(order: &LaunchOrder) -> String {
    let id = order.egress_id.as_str();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let readable: String = id.chars().take(30).map(plain).collect();
    let number = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        // FNV-1a.
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("eg-{readable}-{number:016x}-a{}", order.attempt)
}

/// The group that is asked for. Claim and handover are `secureValue`s.
pub(super) fn request(options: &AciOptions, order: &LaunchOrder) -> Value {
    let open = |(name, value): (&str, &str)| json!({"name": name, "value": value});
    let secret = |name: &str, value: &str| json!({"name": name, "secureValue": value});
    let mut environment: Vec<Value> =
        options.environment.iter().map(|(name, value)| open((name.as_str(), value.as_str()))).collect();
    for (name, value) in order.environment(&options.stack) {
        environment.push(if name == CLAIM { secret(name, &value) } else { open((name, value.as_str())) });
    }
    environment.push(secret(HANDOVER, order.handover.reveal()));
    let cpu = f64::from(order.shape.cpu_milli) / 1000.0;
    let memory = f64::from(order.shape.memory_mib) / 1024.0;
    let tags: BTreeMap<String, String> = labels::of(order, &options.stack)
        .into_iter()
        .map(|(name, value)| (labels::azure_name(&name), labels::azure_value(&value)))
        .collect();
    let mut group = json!({
        "location": options.location,
        "tags": tags,
        "properties": {
            "osType": "Linux", "sku": "Standard", "restartPolicy": "Never",
            "containers": [{"name": CONTAINER, "properties": {
                "image": order.image(&options.image, options.page_image.as_deref()),
                "environmentVariables": environment,
                "resources": {"requests": {"cpu": cpu, "memoryInGB": memory}},
            }}],
        },
    });
    if !options.identities.is_empty() {
        let all: BTreeMap<&String, Value> = options.identities.iter().map(|id| (id, json!({}))).collect();
        group["identity"] = json!({"type": "UserAssigned", "userAssignedIdentities": all});
    }
    if let Some(registry) = &options.registry {
        let identity = options.identities.first();
        group["properties"]["imageRegistryCredentials"] = json!([{"server": registry, "identity": identity}]);
    }
    if let Some(subnet) = &options.subnet {
        group["properties"]["subnetIds"] = json!([{"id": subnet}]);
        let own = [NAME_SERVER.to_owned()];
        let servers = if options.name_servers.is_empty() { &own[..] } else { &options.name_servers[..] };
        group["properties"]["dnsConfig"] = json!({"nameServers": servers});
    }
    group
}

#[cfg(test)]
mod tests {
    use spillway_cost::Platform;

    use crate::conformance;

    #[test]
    fn a_name_is_valid_and_unique() {
        let name = |id: &str, attempt| super::name(&conformance::order(Platform::Aci, id, attempt));
        let one = name("aBcDeFgHiJkL", 1);
        assert!(one.starts_with("eg-eg-abcdefghijkl-") && one.ends_with("-a1"), "{one}");
        assert_ne!(one, name("abcdefghijkl", 1), "ids are told apart by their case");
        assert_ne!(one, name("aBcDeFgHiJkL", 2));
        let longest = name(&"x".repeat(61), 9_999);
        assert!(
            longest.len() <= 63 && longest.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        );
    }
}
