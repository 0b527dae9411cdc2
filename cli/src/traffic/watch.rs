//! `carrick traffic watch`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use carrick_traffic::watch::{Event, Gauge};
use carrick_traffic::{Transport, Watch, WatchReport};
use ipnet::IpNet;

use super::ending;
use super::sight::Sight;

/// Events that are told when they happen; the result has them all.
const TOLD: usize = 40;

/// What `carrick traffic watch` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The exit code is 0 only if every flow was opened and lived to the end with the server it began with.")]
pub(super) struct Args {
    /// Where to, such as `10.0.0.1:5001` or `[fd00::1]:5001`.
    #[arg(value_name = "ADDRESS:PORT")]
    target: SocketAddr,
    /// How many flows.
    #[arg(long, short = 'n', alias = "nconn", default_value_t = 1)]
    flows: u64,
    /// How many are being opened at a time.
    #[arg(long, short, default_value_t = 64)]
    concurrency: usize,
    /// Pause between two questions of a flow.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// A flow that gives no answer for this long is stalled.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    stall: Duration,
    /// Longest wait for a flow to open.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    open_timeout: Duration,
    /// How long to watch once all flows are open; without it until Ctrl-C.
    #[arg(long, short, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Where from: addresses of a prefix. They must be local (ip route add local PREFIX dev lo).
    #[arg(long, alias = "srccidr", value_name = "PREFIX")]
    sources: Option<IpNet>,
    /// Makes the order of sources repeatable; without it each run has another.
    #[arg(long)]
    seed: Option<u64>,
    /// tcp, udp or sctp.
    #[arg(long, default_value = "tcp")]
    transport: Transport,
    /// The same as --transport udp.
    #[arg(long, conflicts_with = "transport")]
    udp: bool,
    /// The result, with all events, as JSON on standard output.
    #[arg(long)]
    json: bool,
    /// Show neither progress nor events while it runs.
    #[arg(long, short)]
    quiet: bool,
}

pub(super) async fn run(args: Args) -> Result<ExitCode> {
    let watch = Watch {
        transport: if args.udp {
            Transport::Udp
        } else {
            args.transport
        },
        flows: args.flows,
        concurrency: args.concurrency,
        interval: args.interval,
        stall: args.stall,
        open_timeout: args.open_timeout,
        duration: args.duration,
        sources: args.sources,
        seed: args.seed.unwrap_or_else(|| fastrand::u64(..)),
        ..Watch::new(args.target)
    };
    let gauge = Arc::<Gauge>::default();
    let shown = gauge.clone();
    let flows = args.flows;
    let sight = Sight::start(args.quiet, move || line(&shown, flows));
    let mut told = 0;
    let tell = |event: &Event| {
        told += 1;
        if !args.quiet && told <= TOLD {
            eprintln!("{event}");
        } else if !args.quiet && told == TOLD + 1 {
            eprintln!("… what follows is in the result");
        }
    };
    let report = watch.run(gauge, ending::on_signal()?, tell).await;
    sight.end().await;
    let report = report?;
    if args.json {
        println!("{}", report.to_json());
    } else {
        print!("{}", text(&report));
    }
    Ok(ending::code(report.is_success()))
}

fn line(gauge: &Gauge, flows: u64) -> String {
    let seen = gauge.seen();
    format!(
        "{} of {flows} flows open, {} failed, {} stalled, {} broken, {} answers",
        seen.opened, seen.failed, seen.stalled, seen.broken, seen.exchanges
    )
}

fn text(report: &WatchReport) -> String {
    let mut text = format!(
        "{} flows for {:.1} s, {} answers\n",
        report.flows,
        report.duration.as_secs_f64(),
        report.exchanges
    );
    let rows = [
        ("lasting", report.lasting),
        ("reset", report.reset),
        ("closed", report.closed),
        ("moved to another server", report.moved),
        ("stalled at the end", report.stalled),
        ("never opened", report.failed),
        ("resumed after a stall", report.resumed),
    ];
    let mut add = |line: String| writeln!(text, "{line}").expect("a String takes all text");
    for (name, count) in rows {
        add(format!("{count:>8} {name}"));
    }
    let longest = report.longest_stall.as_secs_f64();
    add(format!("{longest:>8.3} s longest stall"));
    let lost: Vec<_> = report
        .hosts
        .iter()
        .filter(|(_, held)| held.lost > 0)
        .collect();
    if !lost.is_empty() {
        add("servers that lost flows (lasting, lost):".into());
    }
    for (host, held) in lost {
        add(format!("  {host} {} {}", held.lasting, held.lost));
    }
    text
}
