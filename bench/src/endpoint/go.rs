//! The Go endpoint, built of this repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::Tell;

/// The first minor version of Go 1 that can build it.
const MINOR: u32 = 24;

/// Builds the endpoint of the Go SDK, where there is a Go that can; says so loudly where there is none.
pub(super) fn build(tell: Tell<'_>) -> Result<(Option<TempDir>, Option<PathBuf>)> {
    let Some(go) = find() else {
        let stars = "*".repeat(79);
        eprintln!(
            "{stars}\n*  Go 1.{MINOR} or newer is MISSING: the Go endpoint is NOT MEASURED.\n{stars}"
        );
        return Ok((None, None));
    };
    tell("building the Go endpoint");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop");
    let dir = tempfile::tempdir()?;
    let program = dir.path().join("vl3nse");
    let built = Command::new(&go)
        .args(["build", "-o"])
        .arg(&program)
        .arg("./cmd/vl3nse")
        .current_dir(&source)
        .env("GOTOOLCHAIN", "local")
        .status()
        .with_context(|| format!("cannot start {} in {}", go.display(), source.display()))?;
    ensure!(
        built.success(),
        "the Go endpoint cannot be built; --no-go leaves it out"
    );
    Ok((Some(dir), Some(program)))
}

fn find() -> Option<PathBuf> {
    let of_root = std::env::var_os("GOROOT").map(|root| Path::new(&root).join("bin/go"));
    let places = ["go", "/usr/local/go/bin/go", "/usr/lib/go/bin/go"];
    let places = places.map(PathBuf::from).into_iter().chain(of_root);
    places.into_iter().find(|go| {
        let mut command = Command::new(go);
        let output = command
            .args(["env", "GOVERSION"])
            .env("GOTOOLCHAIN", "local")
            .output();
        output.is_ok_and(|output| is_new_enough(&String::from_utf8_lossy(&output.stdout)))
    })
}

fn is_new_enough(version: &str) -> bool {
    let minor = version.trim().strip_prefix("go1.");
    let minor = minor.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    minor
        .and_then(|minor| minor.parse::<u32>().ok())
        .is_some_and(|minor| minor >= MINOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_1_24_is_new_enough() {
        for (version, is) in [
            ("go1.24", true),
            ("go1.26.8\n", true),
            ("go1.9.1", false),
            ("", false),
        ] {
            assert_eq!(is_new_enough(version), is, "{version}");
        }
    }
}
