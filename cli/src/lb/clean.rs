use std::process::ExitCode;

use anyhow::{Context, Result};
use carrick_lb::kernel::{Kernel, Options};
use carrick_lb::nft::Nft;

use super::privileges;

/// What `carrick lb clean` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the balancer, as in its file.
    #[arg(long, default_value = "lb")]
    name: String,
}

/// Removes everything; nothing there is no mistake.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    privileges::require("carrick lb clean")?;
    // The data planes wait for the kernel, which a runtime's thread must not.
    tokio::task::spawn_blocking(move || remove(&args.name)).await??;
    super::server::remove().await?;
    Ok(ExitCode::SUCCESS)
}

fn remove(name: &str) -> Result<()> {
    let ebpf = Kernel::remove(&Options::pins_of(name));
    let nft = Nft::open().and_then(Nft::remove);
    ebpf.context("cannot remove the eBPF data plane")?;
    nft.context("cannot remove the nftables data plane")
}
