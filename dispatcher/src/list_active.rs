//! ListActiveEgress: which egresses this dispatcher sees to. Runs in the RPC server's tasks.

use async_trait::async_trait;
use prost::Message;
use spillway_bus::{Bid, Handler, Incoming};
use spillway_protocol::code::RpcError;
use spillway_protocol::rpc::ListActiveEgressResponse;

use crate::records::Records;

/// Handler of ListActiveEgress: each dispatcher answers with its own records, so that none is listed twice.
pub struct ListActive(pub Records);

#[async_trait]
impl Handler for ListActive {
    async fn bid(&self, _: &Incoming) -> Bid {
        Bid::Silent
    }

    async fn answer(&self, _: Incoming) -> Result<Vec<u8>, RpcError> {
        let live = self.0.registry.list_live().await?;
        let egress_ids = live
            .iter()
            .filter(|record| !record.state.is_over() && self.0.owns(record))
            .map(|record| record.egress_id.to_string())
            .collect();
        Ok(ListActiveEgressResponse { egress_ids }.encode_to_vec())
    }
}
