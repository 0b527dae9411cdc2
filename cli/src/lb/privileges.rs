use anyhow::{Result, bail};

/// Capabilities by their bit, capabilities(7).
const NET_ADMIN: u32 = 12;

/// Says clearly what a process without privileges lacks.
pub(super) fn require(what: &str) -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if effective(&status).is_some_and(|set| set & (1 << NET_ADMIN) == 0) {
        bail!(
            "{what} needs CAP_NET_ADMIN in this network namespace (and CAP_BPF for the eBPF data plane); \
             run it as root or give it these capabilities. `carrick preflight` says what is there."
        );
    }
    Ok(())
}

fn effective(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read() {
        let status = "Name:\tcarrick\nCapEff:\t0000000000001000\nCapBnd:\tff\n";
        assert_eq!(effective(status), Some(1 << NET_ADMIN));
        assert_eq!(effective("CapEff:\tx\n"), None);
    }
}
