//! `carrick-bench endpoint`: Carrick's endpoint beside that of the Go SDK and a bare gRPC echo.

mod calls;
mod echo;
mod figures;
mod go;
mod identities;
mod path;
mod rates;
mod scale;
mod server;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::calls::Transport;
use self::identities::Identities;
use self::server::{Programs, Subject};
use crate::table::{Table, with_section};

pub(crate) use self::echo::serve as echo;
pub(crate) use self::path::{Args as PathArgs, run as path};

/// What `carrick-bench endpoint` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these parts.
    #[arg(long, value_delimiter = ',', value_name = "PARTS")]
    only: Vec<Part>,
    /// The `carrick` binary; default is `CARRICK_BIN`, or the one beside this program.
    #[arg(long, value_name = "FILE")]
    carrick: Option<PathBuf>,
    /// The Go endpoint; default is to build `tests/interop/cmd/vl3nse`.
    #[arg(long, value_name = "FILE")]
    go: Option<PathBuf>,
    /// Leave the Go endpoint out.
    #[arg(long, conflicts_with = "go")]
    no_go: bool,
    /// Rounds, of which the median is shown.
    #[arg(long, value_name = "NUMBER")]
    rounds: Option<usize>,
    /// Connections of a round.
    #[arg(long, value_name = "NUMBER")]
    connections: Option<usize>,
    /// Encrypt and authenticate by mutual TLS with SPIFFE identities, but for the echo.
    #[arg(long)]
    mtls: bool,
    /// Less of everything: a look, not a measurement.
    #[arg(long)]
    quick: bool,
    /// Write the tables into this page, between its lines `<!-- bench endpoint -->` and `<!-- /bench endpoint -->`.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// What a Request costs.
    Rates,
    /// What idle connections hold, and a refresh of all of them at once.
    Idle,
    /// How fast packets pass, beside plain routing. Needs root.
    Path,
}

/// How much is done.
#[derive(Clone, Debug)]
struct Amount {
    rounds: usize,
    connections: usize,
    /// Calls under way at a time.
    concurrency: usize,
    /// Numbers of idle connections over one HTTP/2 connection.
    idle: Vec<usize>,
    /// Numbers of idle connections that each have an HTTP/2 connection.
    dialled: Vec<usize>,
    /// From how many connections on all are refreshed at once.
    storm: usize,
    /// How long an idle server is left alone before it is looked at.
    settle: Duration,
    /// How long opening connections may take.
    patience: Duration,
}

impl Amount {
    fn new(args: &Args) -> Self {
        let usual = if args.quick {
            Self {
                rounds: 1,
                connections: 100,
                concurrency: 16,
                idle: vec![100, 500],
                dialled: vec![50],
                storm: 500,
                settle: Duration::ZERO,
                patience: Duration::from_secs(30),
            }
        } else {
            Self {
                rounds: 3,
                connections: 2000,
                concurrency: 32,
                idle: vec![1000, 10_000, 100_000],
                dialled: vec![1000, 5000],
                storm: 10_000,
                settle: Duration::from_secs(1),
                patience: Duration::from_secs(40),
            }
        };
        Self {
            rounds: args.rounds.unwrap_or(usual.rounds),
            connections: args.connections.unwrap_or(usual.connections),
            ..usual
        }
    }
}

/// Takes what is under way.
type Tell<'a> = &'a (dyn Fn(&str) + Sync);

/// Measures, prints the tables, and writes them where that is asked for.
pub(crate) async fn run(args: &Args) -> Result<()> {
    ensure!(args.rounds != Some(0), "--rounds: at least 1");
    ensure!(args.connections != Some(0), "--connections: at least 1");
    let begin = Instant::now();
    let tell = |what: &str| eprintln!("• {:4} s  {what}", begin.elapsed().as_secs());
    more_files()?;
    let carrick = args.carrick.clone().map_or_else(server::beside, |path| {
        path.canonicalize()
            .with_context(|| format!("no {}", path.display()))
    })?;
    let (_dir, go) = match (&args.go, args.no_go) {
        (Some(program), _) => (None, Some(program.canonicalize()?)),
        (None, true) => (None, None),
        (None, false) => go::build(&tell)?,
    };
    let identities = if args.mtls {
        Identities::mutual_tls().await?
    } else {
        Identities::none()
    };
    let programs = Programs {
        carrick,
        go,
        identities,
    };
    let (tables, whole) = measure(args, &programs, &tell).await?;
    for table in &tables {
        print!("{}", table.text());
    }
    if let Some(page) = &args.markdown {
        write(args, page, &tables)?;
    }
    ensure!(
        whole,
        "connections were lost while all were refreshed at once"
    );
    Ok(())
}

async fn measure(args: &Args, programs: &Programs, tell: Tell<'_>) -> Result<(Vec<Table>, bool)> {
    let wanted = |part| args.only.is_empty() || args.only.contains(&part);
    let amount = Amount::new(args);
    let mut subjects = vec![Subject::Carrick, Subject::CarrickInMemory];
    subjects.extend(programs.go.is_some().then_some(Subject::Go));
    let (mut tables, mut whole) = (Vec::new(), true);
    if wanted(Part::Rates) {
        let all = [subjects.as_slice(), &[Subject::Echo]].concat();
        for (transport, title) in TRANSPORTS {
            let measured = rates::measure(&all, transport, programs, &amount, tell).await?;
            tables.push(rates::table(title, &measured));
        }
    }
    if wanted(Part::Idle) {
        let mut all = Vec::new();
        for (transport, _) in TRANSPORTS {
            let steps = match transport {
                Transport::Dialled => &amount.dialled,
                Transport::Shared => &amount.idle,
            };
            for subject in subjects.iter().copied() {
                if subject != Subject::CarrickInMemory {
                    let idle = scale::measure(subject, transport, programs, steps, &amount, tell);
                    all.push(idle.await.with_context(|| subject.name())?);
                }
            }
        }
        tables.extend([scale::memory(&all), scale::storms(&all)]);
        whole = scale::is_whole(&all);
    }
    if wanted(Part::Path) {
        tables.push(path::measure(&programs.carrick, args.quick, tell).await?);
    }
    Ok((tables, whole))
}

const TRANSPORTS: [(Transport, &str); 2] = [
    (Transport::Shared, "One HTTP/2 connection for all"),
    (Transport::Dialled, "A new HTTP/2 connection for each call"),
];

/// As many files as the system allows, for us and for what we start.
fn more_files() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

fn write(args: &Args, page: &PathBuf, tables: &[Table]) -> Result<()> {
    let shown = page.display();
    let text = std::fs::read_to_string(page).with_context(|| format!("cannot read {shown}"))?;
    let section: String = tables.iter().map(Table::markdown).collect();
    let (name, flags) = if args.mtls {
        ("endpoint --mtls", "--features mtls -- endpoint --mtls")
    } else {
        ("endpoint", "-- endpoint")
    };
    let section = format!("{}\n{section}", machine(flags));
    let text = with_section(&text, name, &section).with_context(|| {
        format!("{shown} has no lines <!-- bench {name} --> and <!-- /bench {name} -->")
    })?;
    std::fs::write(page, text).with_context(|| format!("cannot write {shown}"))
}

/// What it was measured on.
fn machine(flags: &str) -> String {
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    format!(
        "Measured with `cargo run --release -p carrick-bench {flags}` on Linux {}, {} × {}.\n",
        read("/proc/sys/kernel/osrelease").trim(),
        std::thread::available_parallelism().map_or(1, usize::from),
        model.map_or("unknown", |(_, name)| name).trim()
    )
}
