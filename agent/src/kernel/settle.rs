//! Some changes are finished by a worker of the kernel after they were acknowledged.

use std::time::Duration;

use super::batch::make;
use super::netns::Namespaces;
use super::step::Step;
use crate::{Error, Netns};

/// How often is looked before it is given up, after about a second: it takes so long
/// only where the CPUs are busy with other things.
const TRIES: u32 = 1000;

const PAUSE: Duration = Duration::from_micros(20);

/// Waits until a device takes and gives packets.
///
/// The end of a veth that was set up before the other one gets a queue only when
/// the kernel's worker has seen the carrier (linkwatch), and an IPv6 address is
/// local only when another one has been there (`addrconf_dad_work`, without
/// duplicate address detection too): some ten microseconds later.
pub(super) fn settle(namespaces: &mut Namespaces, netns: &Netns, index: u32) -> Result<(), Error> {
    for attempt in 0..TRIES {
        let is_settled = namespaces
            .enter(netns)?
            .socket
            .is_settled(index)
            .map_err(Error::kernel(format!("read a device in {netns}")))?;
        if is_settled {
            // The worker still holds the lock under which this change is made:
            // when it is, the worker has finished. It changes nothing itself.
            return make(namespaces, netns, &[Step::Up { index, up: true }]);
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the thread is not one of a runtime"
        )]
        std::thread::sleep(PAUSE * (attempt / 10 + 1));
    }
    tracing::debug!(%netns, index, "a device has still not settled");
    Ok(())
}
