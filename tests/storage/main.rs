//! Every store against what stands for it here: the suite that all of them pass, and what only one of them has.

mod azure;
mod faults;
mod gcs;
mod s3;
mod secrets;
