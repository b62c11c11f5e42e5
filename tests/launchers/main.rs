//! Every launcher against a stand-in of its cloud: the one suite of all launchers, what goes wrong with a call, and how
//! tasks leave.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in its helpers too")]

mod aci;
mod cloud_run;
mod ecs;
mod faults;
mod identity;
mod moto;
mod harness;
