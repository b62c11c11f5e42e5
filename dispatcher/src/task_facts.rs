//! From a record's dispatch and a target to what the bill of a task there needs: for the task that is opened, and for one that is
//! looked at while it runs. Pure.

use spillway_bus::{Dispatch, TaskFacts};
use spillway_cost::Shape;

use crate::targets::Target;

/// Facts of a task without the cost of an hour. `opened_ms`: Unix milliseconds.
pub fn task_facts(dispatch: &Dispatch, target: &Target, salvage: bool, opened_ms: i64) -> TaskFacts {
    let config = &target.config;
    let no_machine = Shape { cpu_milli: 0, memory_mib: 0, disk_gib: 0 };
    TaskFacts {
        room: dispatch.room.clone(),
        kind: dispatch.kind.clone(),
        salvage,
        platform: target.launcher.platform(),
        region: config.region.clone(),
        arch: config.arch.clone(),
        capacity: config.capacity,
        nat: config.nat,
        shape: dispatch.shapes.get(target.name()).copied().unwrap_or(no_machine),
        load: dispatch.load,
        opened_ms,
        hour: 0.0,
    }
}
