//! Flags of this repository's cargo commands. One table, read twice: by the set-up before it installs or builds anything,
//! and by the programs that it then starts. No dependencies: the set-up is the first program that is built on a bare
//! machine.
#![warn(missing_docs)]

pub mod bench;
mod check;

pub use check::{Given, Refusal};

/// The value of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Seconds and the like: finite, not negative.
    Number,
    /// A count.
    Whole,
    /// Not empty.
    Text,
    /// One of these names.
    OneOf(&'static [&'static str]),
    /// Part of at least one of these names.
    PieceOf(&'static [&'static str]),
}

/// A flag of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag {
    /// With its dashes.
    pub name: &'static str,
    /// `None`: a switch.
    pub value: Option<Value>,
    /// Its line in `--help`.
    pub about: &'static str,
}

/// A cargo command.
#[derive(Debug)]
pub struct Command {
    /// As it is typed after `cargo`.
    pub name: &'static str,
    /// First line of `--help`.
    pub about: &'static str,
    /// All that it takes.
    pub flags: &'static [Flag],
    /// Flags and filters are passed on to `cargo test`: a flag may be repeated, one name may be given without a flag, and
    /// what follows `--` is for the test programs.
    pub for_cargo_test: bool,
}

const fn flag(name: &'static str, value: Value, about: &'static str) -> Flag {
    Flag { name, value: Some(value), about }
}

const fn switch(name: &'static str, about: &'static str) -> Flag {
    Flag { name, value: None, about }
}

/// Layouts of room composites, as `spillway-plan` reads them.
pub const LAYOUTS: &[&str] = &[
    "grid",
    "grid-light",
    "grid-dark",
    "speaker",
    "speaker-light",
    "speaker-dark",
    "single-speaker",
    "single-speaker-light",
    "single-speaker-dark",
];

/// `cargo demo`.
pub const DEMO: Command = Command {
    name: "demo",
    about: "records a room composite and a track from a real livekit-server",
    flags: &[
        flag("--out", Value::Text, "where the files go; default: a folder `demo` in the cache"),
        flag("--seconds", Value::Number, "how long to record (12)"),
        flag("--layout", Value::OneOf(LAYOUTS), "of the room composite (grid)"),
    ],
    for_cargo_test: false,
};

/// `cargo bench-egress`.
pub const BENCH: Command = Command {
    name: "bench-egress",
    about: "figures as a table and JSON (release build), never a verdict",
    flags: &[
        flag("--only", Value::PieceOf(bench::NAMES), "only the measurements whose name contains this"),
        flag(
            "--seconds",
            Value::Number,
            "how long each kind is recorded (20; `live segments`: at least 60, `weights`: 120, `starved stream` and `soak`: 30; \
             `still clocks`: 80, `twelve hours`: 900)",
        ),
        flag("--runs", Value::Whole, "runs of each kind and of `all outputs` (1)"),
        flag("--fleet", Value::Whole, "StartEgress calls of `fleet` (200)"),
        flag("--estimates", Value::Whole, "recordings of `estimates` (50)"),
        flag("--longest", Value::Number, "seconds of the longest recording of `estimates` (300)"),
        flag("--live", Value::Whole, "recordings that `dispatcher` watches (1000)"),
        flag(
            "--rounds",
            Value::Whole,
            "rounds of `kills`: five recordings on each store; of `kills of segments`: four; of `rtmp faults` (2)",
        ),
        flag("--store", Value::OneOf(bench::STORES), "only this store in `kills` and `kills of segments`"),
        flag(
            "--seed",
            Value::Whole,
            "of the moments of `kills` and `kills of segments`, the faults of `fleet`, and `fuzz` (1)",
        ),
        flag("--json", Value::Text, "a file that gets the figures, instead of standard output"),
    ],
    for_cargo_test: false,
};

/// `cargo images`.
pub const IMAGES: Command = Command {
    name: "images",
    about: "container images of runner, dispatcher and Lambda, with their sizes and contents",
    flags: &[switch("--dev", "only the runner's, of the programs that the tests start")],
    for_cargo_test: false,
};

/// Argument `install` of the set-up program; not a cargo alias.
pub const INSTALL: Command =
    Command { name: "install", about: "only installs what the others need", flags: &[], for_cargo_test: false };

/// `cargo verify`. No `--package` (`cargo test --workspace` ignores it silently) and no `--release` (the end-to-end tests
/// start the programs of the debug build).
pub const VERIFY: Command = Command {
    name: "verify",
    about: "every check and test; arguments narrow the tests as they do for `cargo test`",
    flags: &[
        flag("--test", Value::Text, "only this test program"),
        switch("--tests", "all test programs and no documentation"),
        switch("--lib", "only unit tests of libraries"),
        switch("--bins", "only unit tests of programs"),
        flag("--bin", Value::Text, "only unit tests of this program"),
        switch("--doc", "only documentation"),
        switch("--no-fail-fast", "goes on after a test program that failed"),
        switch("--no-run", "builds the tests and stops"),
        flag("--jobs", Value::Whole, "compilers at once"),
        flag("-j", Value::Whole, "likewise"),
        switch("--quiet", "says less"),
        switch("-q", "likewise"),
        switch("--verbose", "says more"),
        switch("-v", "likewise"),
        switch("--locked", "fails where Cargo.lock would change"),
        switch("--offline", "downloads nothing"),
    ],
    for_cargo_test: true,
};

#[cfg(test)]
mod tests;
