//! `carrick traffic table`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use carrick_traffic::{Frequencies, Report, Spread, frequency, histogram};

/// What `carrick traffic table` is told.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Results of `carrick traffic client --json` or of mconnect, a column each; - is standard
    /// input. A column's name is the file's, without what ends it and without `mconnect-`.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How many servers there are; those that no connection reached are the row `<missing> 0`.
    #[arg(long, default_value_t = 0)]
    servers: usize,
    /// Draw histograms here, too.
    #[arg(long)]
    histogram: bool,
    /// Write histograms as a picture to this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// No statistics below the table.
    #[arg(long)]
    bare: bool,
    /// The statistics as JSON instead of everything else.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let reports = args
        .files
        .iter()
        .map(|file| read(file))
        .collect::<Result<Vec<_>>>()?;
    let frequencies: Vec<_> = reports
        .iter()
        .map(|(name, report)| (name.clone(), report.frequencies(args.servers)))
        .collect();
    if let Some(file) = &args.svg {
        std::fs::write(file, histogram::svg(&frequencies))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    if args.json {
        println!("{}", json(&reports, args.servers));
    } else {
        print!("{}", text(&reports, &frequencies, args));
    }
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> Result<(String, Report)> {
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    let report = Report::read(&text).with_context(|| format!("{} is no result", file.display()))?;
    Ok((column(file), report))
}

fn column(file: &Path) -> String {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    name.strip_prefix("mconnect-").unwrap_or(&name).to_owned()
}

fn text(
    reports: &[(String, Report)],
    frequencies: &[(String, Frequencies)],
    args: &Args,
) -> String {
    let mut text = frequency::side_by_side(frequencies);
    if !args.bare {
        let name = reports
            .iter()
            .map(|(name, _)| name.chars().count())
            .max()
            .unwrap_or(0)
            .max(6);
        writeln!(
            text,
            "\n{:<name$} {:>8} {:>7} {:>7} {:>6} {:>6} {:>8} {:>8} {:>7}  verdict",
            "result", "failures", "servers", "missing", "min", "max", "sd", "chi²", "p"
        )
        .expect("a String takes all text");
        for (column, report) in reports {
            let spread = report.spread(args.servers);
            writeln!(
                text,
                "{column:<name$} {:>8} {:>7} {:>7} {:>6} {:>6} {:>8.2} {:>8.1} {:>7.4}  {}",
                report.failed_connects + report.failed_reads,
                spread.servers,
                spread.missing,
                spread.min,
                spread.max,
                spread.sd,
                spread.chi_square,
                spread.p_value(),
                spread.verdict()
            )
            .expect("a String takes all text");
        }
    }
    if args.histogram {
        text = text + "\n" + &histogram::terminal(frequencies, 78);
    }
    text
}

fn json(reports: &[(String, Report)], servers: usize) -> serde_json::Value {
    let row = |(name, report): &(String, Report)| {
        let spread: Spread = report.spread(servers);
        serde_json::json!({
            "name": name,
            "spread": spread,
            "p_value": spread.p_value(),
            "verdict": spread.verdict(),
            "failures": report.failed_connects + report.failed_reads,
            "frequencies": report.frequencies(servers).rows().collect::<Vec<_>>(),
        })
    };
    reports.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_called_what_the_run_was_called() {
        assert_eq!(column(Path::new("/x/mconnect-ipvs")), "ipvs");
        assert_eq!(column(Path::new("rr.json")), "rr");
    }
}
