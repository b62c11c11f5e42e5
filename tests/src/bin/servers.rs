//! `spillway-servers`: Redis, livekit-server and, on request, a dispatcher of this build, until a signal ends them.

use anyhow::Result;
use clap::Parser;
use spillway_tests::servers::TestServers;

#[derive(Parser)]
#[command(name = "spillway-servers", about = "Starts what a recording needs on free loopback ports and says where")]
struct Args {
    /// Starts a dispatcher too
    #[arg(long)]
    dispatcher: bool,
    /// Lines for livekit-server's YAML
    #[arg(long, default_value = "")]
    livekit: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let servers = TestServers::start(&args.livekit).await?;
    println!("redis {}", servers.redis_address);
    println!("livekit {} key {} secret {}", servers.api.address, servers.api.key, servers.api.secret);
    println!("folder {}", servers.folder().display());
    let _dispatcher = if args.dispatcher {
        let dispatcher = servers.dispatcher("dispatcher", "").await?;
        println!("dispatcher {} log {}", dispatcher.health, dispatcher.process.log.display());
        Some(dispatcher)
    } else {
        None
    };
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = term.recv() => {}
        done = tokio::signal::ctrl_c() => done?,
    }
    Ok(())
}
