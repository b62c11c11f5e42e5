//! Facts → EgressInfo, through the one ledger that travels in the record.

use prost::Message;
use spillway_bus::Record;
use spillway_process::chain;
use spillway_protocol::code::{Code, RpcError};
use spillway_protocol::ledger::{Fact, Ledger};
use spillway_protocol::livekit::EgressInfo;
use spillway_protocol::rpc::StartEgressRequest;
use tracing::warn;

/// The first entry: accepted, and what it waits for if it does. The ledger as the record keeps it, and what it says.
pub fn accepted(start: &StartEgressRequest, waiting: Option<&str>, at: i64) -> Result<(String, EgressInfo), RpcError> {
    let mut ledger = Ledger::accept(start, at);
    if let Some(words) = waiting {
        ledger.on(Fact::Waiting(words.to_owned()), at);
    }
    let info = ledger.info().clone();
    let text = serde_json::to_string(&ledger).map_err(|error| RpcError::new(Code::Internal, error.to_string()))?;
    Ok((text, info))
}

/// What livekit-server was or is to be told last.
pub fn info_of(record: &Record) -> Result<EgressInfo, RpcError> {
    EgressInfo::decode(record.info.as_slice())
        .map_err(|error| RpcError::new(Code::Internal, format!("the record's EgressInfo cannot be read: {error}")))
}

/// The ledger of this record, with more facts.
pub fn continued(record: &Record, facts: Vec<Fact>, at: i64) -> Continued {
    let mut ledger = match serde_json::from_str::<Ledger>(&record.ledger) {
        Ok(ledger) => ledger,
        // A newer runner may have written more than we understand; then the facts begin with what livekit-server knows.
        Err(error) => {
            warn!(egress_id = %record.egress_id, error = %chain(&error), "ledger cannot be read, begun again");
            Ledger::accept(&StartEgressRequest { egress_id: record.egress_id.to_string(), ..Default::default() }, at)
        }
    };
    for fact in facts {
        ledger.on(fact, at);
    }
    Continued { text: serde_json::to_string(&ledger).unwrap_or_default(), info: ledger.info().clone() }
}

pub struct Continued {
    pub text: String,
    pub info: EgressInfo,
}
