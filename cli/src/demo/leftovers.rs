//! Looks whether anything that the demo made is still there.

use std::fs;
use std::io;
use std::path::Path;

/// What is left, one line each.
pub(crate) fn find() -> io::Result<Vec<String>> {
    let mut left = Vec::new();
    for name in names("/run/netns")? {
        left.push(format!("network namespace {name}"));
    }
    for name in names("/run/carrick")? {
        left.push(format!("file /run/carrick/{name}"));
    }
    for name in names("/sys/class/net")?.into_iter().filter(|name| name != "lo") {
        left.push(format!("interface {name}"));
    }
    let me = std::process::id().to_string();
    for pid in names("/proc")? {
        let is_process = pid.bytes().all(|byte| byte.is_ascii_digit());
        if is_process && pid != me {
            let what = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            left.push(format!("process {pid} {}", what.trim()));
        }
    }
    Ok(left)
}

fn names(directory: &str) -> io::Result<Vec<String>> {
    if !Path::new(directory).exists() {
        return Ok(Vec::new());
    }
    fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}
