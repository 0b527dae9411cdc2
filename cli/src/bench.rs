//! `carrick bench`: measures on this machine.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use carrick_bench::lb::{self, Options, Other, Part, Results};
use clap::Subcommand;
use nix::mount::{MsFlags, mount};

use crate::sandbox;

/// What `carrick bench` is told.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The load balancer beside the kernel's own: how evenly, how fast.
    ///
    /// Needs root, iproute2 and nftables. Everything happens in namespaces of its own, and nothing
    /// is left of them, however it ends.
    Lb(Lb),
}

#[derive(Debug, clap::Args)]
struct Lb {
    /// Only these parts.
    #[arg(long, value_delimiter = ',', value_name = "PARTS")]
    only: Vec<Which>,
    /// Connections that are spread.
    #[arg(long, default_value_t = 10_000)]
    connections: u64,
    /// Servers that they are spread over.
    #[arg(long, default_value_t = 100)]
    servers: u32,
    /// Measure this object file's XDP program, too: packets to TCP and UDP port 80 of 10.0.0.1.
    #[arg(long, value_name = "FILE.o")]
    subject: Option<PathBuf>,
    /// What its maps shall hold: lines of `map key value` in hexadecimal as in memory, or
    /// `map key new TYPE KEY VALUE ENTRIES` in a map of maps (numbers as in linux/bpf.h).
    #[arg(long, value_name = "FILE", requires = "subject")]
    subject_maps: Option<PathBuf>,
    /// Less of everything: a look, not a measurement.
    #[arg(long)]
    quick: bool,
    /// The results as JSON on standard output.
    #[arg(long)]
    json: bool,
    /// Write the results into this page, between its lines `<!-- bench lb -->` and `<!-- /bench lb -->`.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Which {
    /// How evenly each policy spreads connections.
    Distribution,
    /// What becomes of flows while servers come and go.
    Live,
    /// What a packet costs.
    Packets,
    /// Packets per second from a veth to a veth.
    Path,
}

/// Runs it; must be called while the process has a single thread.
pub(crate) fn run(args: &Args) -> ExitCode {
    let Command::Lb(args) = &args.command;
    match measure(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("carrick bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Lb) -> Result<ExitCode> {
    ensure!(
        nix::unistd::Uid::effective().is_root(),
        "this needs root: it makes network namespaces and loads packet programs into the kernel"
    );
    if !sandbox::is_inside() {
        return Ok(sandbox::run_inside()?);
    }
    sandbox::settle().context("cannot make a place for the benchmark")?;
    own_pins().context("cannot mount a BPF file system of its own")?;
    let results = lb::run(&options(args), &mut |step| eprintln!("• {step}"))?;
    if let Some(page) = &args.markdown {
        write_section(page, &results)?;
    }
    if args.json {
        println!("{}", serde_json::to_string(&results)?);
    } else {
        print!("{}", results.text());
    }
    Ok(ExitCode::SUCCESS)
}

/// What is pinned goes with this mount.
fn own_pins() -> nix::Result<()> {
    let (none, pins) = (None::<&str>, "/sys/fs/bpf");
    if !Path::new(pins).exists() {
        return Ok(());
    }
    mount(Some("bpf"), pins, Some("bpf"), MsFlags::empty(), none)
}

fn options(args: &Lb) -> Options {
    let part = |which: &Which| match which {
        Which::Distribution => Part::Distribution,
        Which::Live => Part::Live,
        Which::Packets => Part::Packets,
        Which::Path => Part::Path,
    };
    Options {
        // As a path it is found again wherever the program lies.
        carrick: "/proc/self/exe".into(),
        parts: args.only.iter().map(part).collect(),
        connections: args.connections,
        servers: args.servers,
        subject: args.subject.clone().map(|object| Other {
            object,
            maps: args.subject_maps.clone(),
        }),
        quick: args.quick,
    }
}

/// The lines around the section in a page.
const MARKS: [&str; 2] = ["<!-- bench lb -->\n", "<!-- /bench lb -->"];

fn write_section(page: &Path, results: &Results) -> Result<()> {
    let text =
        std::fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let text = with_section(&text, &results.markdown()).with_context(|| {
        format!(
            "{} has no lines {} and {}",
            page.display(),
            MARKS[0].trim(),
            MARKS[1]
        )
    })?;
    std::fs::write(page, text).with_context(|| format!("cannot write {}", page.display()))
}

fn with_section(page: &str, section: &str) -> Option<String> {
    let (before, rest) = page.split_once(MARKS[0])?;
    let (_, after) = rest.split_once(MARKS[1])?;
    Some([before, MARKS[0], section, MARKS[1], after].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_written_anew() {
        let page = "a\n<!-- bench lb -->\nold\n<!-- /bench lb -->\nb\n";
        let new = with_section(page, "new\n").unwrap();
        assert_eq!(new, "a\n<!-- bench lb -->\nnew\n<!-- /bench lb -->\nb\n");
        assert_eq!(with_section("no marks", "new"), None);
    }
}
