//! The load balancer with real packets: a client, a balancer and servers in
//! namespaces of their own, and every test with every data plane that can do
//! what it is about. Needs root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

/// Makes a test of each function for each data plane named before it.
macro_rules! on {
    ($($plane:ident),+: $(#[$doc:meta])* fn $name:ident($argument:ident) $body:block) => {
        $(#[$doc])*
        mod $name {
            #[allow(unused_imports, reason = "what a module's tests have in common")]
            use super::*;

            fn $name($argument: carrick_tests::balancer::Plane) $body

            $(
                #[test]
                #[expect(non_snake_case, reason = "named as the data plane is")]
                fn $plane() {
                    $name(carrick_tests::balancer::Plane::$plane);
                }
            )+
        }
    };
}

#[path = "lb/changes.rs"]
mod changes;
#[path = "lb/choices.rs"]
mod choices;
#[path = "lb/modes.rs"]
mod modes;
#[path = "lb/near.rs"]
mod near;
#[path = "lb/packets.rs"]
mod packets;
#[path = "lb/preflight.rs"]
mod preflight;
#[path = "lb/program.rs"]
mod program;
#[path = "lb/rig.rs"]
mod rig;
#[path = "lb/vips.rs"]
mod vips;
