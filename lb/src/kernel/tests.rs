use super::{Hook, Program};
use crate::tables::Sizes;

/// Whether this process may load programs; tests that need it pass without.
fn privileged() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn the_program_loads_at_every_hook() {
    if !privileged() {
        return;
    }
    for hook in [Hook::Xdp, Hook::Tc] {
        Program::load(hook, Sizes::small()).unwrap();
    }
}
