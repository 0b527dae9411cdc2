//! `carrick demo`: two domains, three nodes, five pods, on one machine.
//!
//! Everything is real: the programs are this binary, the machines are network
//! namespaces, the packets go through the kernel. Everything is inside
//! namespaces of the demo's own ([`crate::sandbox`]) and gone with them.

mod fetch;
mod fleet;
mod interruption;
mod leftovers;
mod netns;
mod picture;
mod plan;
mod programs;
mod sight;
mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use carrick_agent::Kernel;

use fetch::Pod;
use fleet::Fleet;
use interruption::Watch;
use plan::NODES;

use crate::sandbox;

/// What `carrick demo` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave everything up until Ctrl-C, and say how to look at it.
    #[arg(long)]
    keep: bool,
    /// Where the programs' logs go; kept after the demo. Without it they vanish with it.
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
}

/// The endpoint that is killed.
const VICTIM: &str = "nse-east-1";

/// How long it is away.
const AWAY: Duration = Duration::from_secs(3);

/// Runs the demo; must be called while the process has a single thread.
pub(crate) fn run(args: Args) -> ExitCode {
    if !sandbox::is_inside() {
        return sandbox::run_inside().unwrap_or_else(|error| fail(&error.into()));
    }
    let done = sandbox::settle()
        .context("cannot make a place for the demo")
        .and_then(|outer| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?;
            runtime.block_on(show(args, &outer))
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("\ncarrick demo: {error:#}");
    ExitCode::FAILURE
}

/// The whole demo; whatever happens, what was made is removed.
async fn show(args: Args, outer: &str) -> Result<()> {
    let before = leftovers::look()?;
    let agent = Kernel::new().context("no vswitch agent")?;
    let logs = args
        .logs
        .clone()
        .unwrap_or_else(|| "/run/carrick-demo/logs".into());
    let mut fleet = Fleet::new(&logs)?;
    step("making 3 nodes, 5 pods and the fabric between the nodes (network namespaces)");
    let shown = async {
        world::make(&agent).await?;
        act(&mut fleet).await?;
        if args.keep {
            keep(outer).await;
        }
        Ok(())
    };
    let shown = tokio::select! {
        shown = shown => shown,
        () = sight::interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    step("removing everything");
    let mut left = fleet.stop().await;
    if let Err(error) = world::remove(&agent).await {
        left.push(format!("{error:#}"));
    }
    left.extend(leftovers::look()?.difference(&before).cloned());
    shown?;
    if !left.is_empty() {
        bail!("left behind or ended badly:\n  {}", left.join("\n  "));
    }
    println!("\nDone: every fetch succeeded, every address was kept, nothing is left.");
    Ok(())
}

async fn act(fleet: &mut Fleet) -> Result<()> {
    step("starting 2 registries, 1 prefix server, 3 endpoints, 5 clients, 5 applications");
    for program in programs::all() {
        fleet.start(program).await?;
    }
    step("waiting until the endpoints are meshed and every client has its address");
    let pods = sight::pods_up(fleet).await?;
    println!("\n{}", picture::topology(&sight::prefixes().await?, &pods));

    step("every pod fetches /hello from every other: by address / by name");
    fetch_all(&pods).await?;
    crash(fleet, &pods).await?;
    step("every pod fetches /hello from every other once more");
    fetch_all(&pods).await
}

async fn fetch_all(pods: &[Pod]) -> Result<()> {
    let fetches = fetch::all(pods).await?;
    println!("\n{}", picture::fetches(&fetches));
    let failed: Vec<String> = fetches
        .iter()
        .filter(|fetch| !fetch.is_ok())
        .map(|fetch| format!("{} -> {}: {}", fetch.from, fetch.to, why(fetch)))
        .collect();
    if !failed.is_empty() {
        bail!(
            "{} of {} fetches failed:\n  {}",
            failed.len(),
            fetches.len(),
            failed.join("\n  ")
        );
    }
    Ok(())
}

fn why(fetch: &fetch::Fetch) -> String {
    let errors = [
        ("by address", &fetch.by_address),
        ("by name", &fetch.by_name),
    ];
    let errors = errors.iter().filter_map(|(how, result)| {
        result
            .as_ref()
            .err()
            .map(|error| format!("{how}: {error:#}"))
    });
    errors.collect::<Vec<_>>().join("; ")
}

/// Kills an endpoint, starts it again and shows what its clients noticed.
async fn crash(fleet: &mut Fleet, pods: &[Pod]) -> Result<()> {
    step(&format!(
        "killing {VICTIM} with SIGKILL while every pair exchanges packets"
    ));
    let watch = Watch::start(pods);
    let killed = Instant::now();
    fleet.crash(VICTIM, AWAY).await?;
    let after = sight::pods_up(fleet).await?;
    println!("  it was away for {:.1} s", killed.elapsed().as_secs_f64());
    let seen = watch.stop().await?;
    println!(
        "\n  longest interruption of each pair (a packet every {:?}):\n",
        interruption::PERIOD
    );
    println!("{}", picture::interruptions(&seen));
    let addresses = |pods: &[Pod]| -> BTreeMap<_, _> {
        pods.iter().map(|pod| (pod.name, pod.address)).collect()
    };
    let (before, after) = (addresses(pods), addresses(&after));
    if before != after {
        bail!("addresses changed: {before:?} became {after:?}");
    }
    println!("  every address is unchanged");
    Ok(())
}

async fn keep(pid: &str) {
    println!("\nIt stays up until Ctrl-C. In another terminal (-U only if you are not root):\n");
    println!("  sudo nsenter -t {pid} -m -p -n -U bash       # step inside; then, for example:");
    println!("    ip netns exec ant ip addr                  # a pod");
    println!("    ip netns exec ant curl 172.16.1.1:5000/hello");
    println!("    ip netns exec carrick-vl3-east-1 ip route  # a router");
    let admin = NODES[0].admin();
    println!("    /proc/1/exe status --admin unix://{admin}");
    sight::interrupted().await;
}

/// Says what comes next.
fn step(text: &str) {
    println!("• {text}");
}
