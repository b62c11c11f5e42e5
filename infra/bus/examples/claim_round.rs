//! How long a StartEgress-like call takes on a Redis: request, bid, grant, answer. `claim_round ADDRESS [ROUNDS]`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use async_trait::async_trait;
use spillway_bus::{
    AffinityOptions, Bid, Bus, CallOptions, Handler, Incoming, RedisConfig, Routing, RpcClient, RpcServer,
};
use spillway_protocol::RpcError;

struct Echo;

#[async_trait]
impl Handler for Echo {
    async fn bid(&self, _incoming: &Incoming) -> Bid {
        Bid::Now(1.0)
    }

    async fn answer(&self, incoming: Incoming) -> Result<Vec<u8>, RpcError> {
        Ok(incoming.request.to_vec())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let address = args.next().context("which Redis? host:port")?;
    let rounds: usize = args.next().map_or(Ok(1000), |rounds| rounds.parse())?;
    let config = RedisConfig { address, ..RedisConfig::default() };
    let (here, there) = (Bus::connect(&config).await?, Bus::connect(&config).await?);
    let server = RpcServer::new(&here, "EgressInternal");
    server.serve("StartEgress", "", Routing::Affinity, Arc::new(Echo)).await?;
    server.serve("StopEgress", "", Routing::Queue, Arc::new(Echo)).await?;
    let client = RpcClient::new(&there, "EgressInternal");
    for method in ["StartEgress", "StopEgress"] {
        let mut took = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let began = Instant::now();
            let request = vec![0; 300];
            match method {
                "StartEgress" => client.call_by_affinity(method, "", request, &AffinityOptions::start_egress()).await?,
                _ => client.call(method, "", request, &CallOptions::queue()).await?,
            };
            took.push(began.elapsed());
        }
        took.sort();
        let at = |share: f64| -> Duration { took[((rounds - 1) as f64 * share) as usize] };
        println!("{method}: {rounds} rounds, p50 {:?}, p99 {:?}, worst {:?}", at(0.5), at(0.99), at(1.0));
    }
    Ok(())
}
