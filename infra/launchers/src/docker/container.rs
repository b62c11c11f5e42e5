//! A container as it is asked for: image, variables, limits. Pure, but for a line in the log where the machine is too small.

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, HostConfig};
use tracing::warn;

use super::api::limits;
use super::options::DockerOptions;
use crate::labels;
use crate::launcher::LaunchOrder;

/// The image that the order needs.
pub(super) fn image<'a>(options: &'a DockerOptions, order: &LaunchOrder) -> &'a str {
    order.image(&options.image, options.page_image.as_deref())
}

/// The container that is asked for. `cores`: of the daemon's machine.
pub(super) fn body(options: &DockerOptions, order: &LaunchOrder, cores: Option<u32>) -> ContainerCreateBody {
    let open = options.environment.iter().map(|(name, value)| format!("{name}={value}"));
    let names = order.environment(&options.stack).into_iter().map(|(name, value)| format!("{name}={value}"));
    let labels: HashMap<String, String> = labels::of(order, &options.stack).into_iter().collect();
    let (security_opt, shm_size) = limits(order.page);
    let host = HostConfig {
        memory: Some(i64::from(order.shape.memory_mib) << 20),
        // Without it the kernel swaps before it kills.
        memory_swap: Some(i64::from(order.shape.memory_mib) << 20),
        nano_cpus: Some(i64::from(given(order, cores)) * 1_000_000),
        init: Some(true),
        network_mode: options.network.clone(),
        binds: Some(options.volumes.clone()),
        readonly_rootfs: Some(options.read_only),
        tmpfs: (options.read_only).then(|| HashMap::from([("/tmp".to_owned(), "exec".to_owned())])),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(security_opt),
        shm_size,
        ..HostConfig::default()
    };
    ContainerCreateBody {
        image: Some(image(options, order).to_owned()),
        env: Some(open.chain(names).collect()),
        labels: Some(labels),
        user: options.user.clone(),
        attach_stdin: Some(true),
        open_stdin: Some(true),
        // Detaching closes it for the program too.
        stdin_once: Some(true),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}

/// Thousandths of a core: those of the order, at most all of the machine. A recording that needs more falls behind, and
/// there is no other machine on this target.
fn given(order: &LaunchOrder, cores: Option<u32>) -> u32 {
    let (wanted, max) = (order.shape.cpu_milli, cores.map_or(u32::MAX, |cores| cores.saturating_mul(1000)));
    if wanted > max {
        warn!(egress_id = %order.egress_id, wanted, max, "container gets all cores of the machine, which are fewer than it needs");
    }
    wanted.min(max)
}
