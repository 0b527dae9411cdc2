//! `carrick traffic client`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use carrick_traffic::{Client, Progress, Report, Transport};
use ipnet::IpNet;

use super::ending;
use super::sight::Sight;

/// A run that is to go on until it is stopped.
const HOUR: Duration = Duration::from_secs(3600);

/// What `carrick traffic client` is told.
#[derive(Debug, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
#[command(after_help = "\
The exit code is 0 only if every connection was made and answered, none that was held was lost, \
and, with --expect, every server got at least one.

The JSON's fields hosts, connects, failed_connects, failed_reads, start_time, timeout and duration \
(nanoseconds) are those of mconnect.")]
pub(super) struct Args {
    /// Where to, such as `10.0.0.1:5001` or `[fd00::1]:5001`.
    #[arg(value_name = "ADDRESS:PORT")]
    target: SocketAddr,
    /// How many connections.
    #[arg(long, short = 'n', alias = "nconn", default_value_t = 1)]
    connections: u64,
    /// How many are being made at a time.
    #[arg(long, short, alias = "maxconcurrent", default_value_t = 64, value_parser = at_least_one)]
    concurrency: usize,
    /// Begin at most so many a second.
    #[arg(long)]
    rate: Option<f64>,
    /// Where from: random addresses of a prefix, none twice before all were used. They must be
    /// local (ip route add local PREFIX dev lo).
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
    /// For all connections together; without it 2 s and 1 s per thousand, and what --rate takes.
    #[arg(long, value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// For one connection, until it is answered.
    #[arg(long, value_parser = humantime::parse_duration)]
    connection_timeout: Option<Duration>,
    /// UDP: ask again so often if there is no answer within a second.
    #[arg(long, default_value_t = 2)]
    retries: u32,
    /// Keep all connections open this long after the last was made; those that are lost count as
    /// failures.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    hold: Option<Duration>,
    /// The same until Ctrl-C.
    #[arg(long, conflicts_with = "hold")]
    keep: bool,
    /// The servers that must be reached: how many, or their names, separated by commas.
    #[arg(long, value_name = "N|NAMES")]
    expect: Option<Expected>,
    /// text or json.
    #[arg(long, short, default_value = "text")]
    output: Output,
    /// The same as --output json.
    #[arg(long, conflicts_with = "output")]
    json: bool,
    /// Show no progress.
    #[arg(long, short)]
    quiet: bool,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".into()),
        other => other.map_err(|error: std::num::ParseIntError| error.to_string()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Json,
    #[value(alias = "txt")]
    Text,
}

/// Servers that a balancer should reach.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    Number(usize),
    Names(Vec<String>),
}

impl std::str::FromStr for Expected {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = || text.split(',').map(|name| name.trim().to_owned());
        Ok(text.parse().map_or_else(
            |_| Self::Names(names().filter(|name| !name.is_empty()).collect()),
            Self::Number,
        ))
    }
}

impl Expected {
    fn servers(&self) -> usize {
        match self {
            Self::Number(number) => *number,
            Self::Names(names) => names.len(),
        }
    }

    /// Why the result is not what was expected.
    fn complaint(&self, report: &Report) -> Option<String> {
        let reached = report.hosts.len();
        match self {
            Self::Number(number) => (reached < *number)
                .then(|| format!("only {reached} of {number} servers got connections")),
            Self::Names(names) => {
                let missing = report.missing(names.iter().map(String::as_str));
                (!missing.is_empty())
                    .then(|| format!("no connection reached {}", missing.join(", ")))
            }
        }
    }
}

pub(super) async fn run(args: Args) -> Result<ExitCode> {
    let client = client(&args);
    let progress = Arc::<Progress>::default();
    let shown = progress.clone();
    let sight = Sight::start(args.quiet, move || line(&shown));
    let report = client.run(progress, ending::on_signal()?).await;
    sight.end().await;
    let report = report?;
    if args.json || args.output == Output::Json {
        println!("{}", report.to_json());
    } else {
        print!("{}", text(&report, args.expect.as_ref()));
    }
    let complaint = args.expect.and_then(|expected| expected.complaint(&report));
    if let Some(complaint) = &complaint {
        eprintln!("carrick traffic: {complaint}");
    }
    Ok(ending::code(report.is_success() && complaint.is_none()))
}

fn client(args: &Args) -> Client {
    let hold = args.hold.or(args.keep.then_some(HOUR * 24 * 365));
    Client {
        transport: if args.udp {
            Transport::Udp
        } else {
            args.transport
        },
        connections: args.connections,
        concurrency: args.concurrency,
        rate: args.rate,
        sources: args.sources,
        seed: args.seed.unwrap_or_else(|| fastrand::u64(..)),
        timeout: args.timeout,
        connection_timeout: args.connection_timeout,
        retries: args.retries,
        hold,
        ..Client::new(args.target)
    }
}

fn line(progress: &Progress) -> String {
    let seen = progress.seen();
    let done = seen.made + seen.failed;
    let held = match seen.held {
        0 => String::new(),
        held => format!(", holding {held}"),
    };
    format!(
        "{done} of {} connections, {} failed{held}",
        seen.expected, seen.failed
    )
}

fn text(report: &Report, expected: Option<&Expected>) -> String {
    use std::fmt::Write as _;
    let mut text = format!(
        "{} connections in {:.2} s: {} failed connects, {} failed reads\n",
        report.connects,
        report.duration.as_secs_f64(),
        report.failed_connects,
        report.failed_reads
    );
    let mut add = |line: String| writeln!(text, "{line}").expect("a String takes all text");
    for (kind, count) in &report.errors {
        add(format!("  {count} {kind}"));
    }
    if let Some(held) = report.held {
        add(format!(
            "held: {} lasting, {} lost",
            held.lasting, held.lost
        ));
    }
    if let Some(latency) = report.answer_latency {
        let [p50, p99, max] =
            [latency.p50, latency.p99, latency.max].map(|time| time.as_secs_f64() * 1000.0);
        add(format!(
            "answered after {p50:.2} ms (half), {p99:.2} ms (99 %), {max:.2} ms (all)"
        ));
    }
    let expected = expected.map_or(0, Expected::servers);
    let spread = report.spread(expected);
    if spread.servers > 0 {
        add(format!(
            "{} servers, {} missing: min {}, max {}, sd {:.2}, chi² {:.1} (random would stay below {:.0}): {}",
            spread.servers,
            spread.missing,
            spread.min,
            spread.max,
            spread.sd,
            spread.chi_square,
            spread.chi_square_bound(),
            spread.verdict()
        ));
        add("frequencies (servers, connections of each):".into());
        add(report
            .frequencies(expected)
            .to_string()
            .trim_end_matches('\n')
            .to_owned());
    }
    for (host, count) in &report.hosts {
        add(format!("{host} {count}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_expected_by_number_or_by_name() {
        assert_eq!("100".parse(), Ok(Expected::Number(100)));
        assert_eq!(
            "a, b,".parse(),
            Ok(Expected::Names(vec!["a".into(), "b".into()]))
        );
    }
}
