//! Which failures are worth a line in the log. Pure.

use std::error::Error as StdError;
use std::fmt;

use crate::Error;

/// Why the last try failed, so that a next hop which is away for a day is one
/// line in the log and not one for each try. Shows the error and its causes;
/// structured logs show an error's first level only.
#[derive(Debug, Default)]
pub(super) struct Reason(Option<String>);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("none"))
    }
}

impl Reason {
    /// Remembers an error; whether it is another than the one before.
    pub(super) fn is_new(&mut self, error: &Error) -> bool {
        let reason = Some(causes(error));
        let is_new = self.0 != reason;
        self.0 = reason;
        is_new
    }

    /// It worked.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }
}

fn causes(error: &dyn StdError) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // What the transport says repeats itself.
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use carrick_types::ConnectionId;

    use super::*;
    use crate::{Kind, Operation};

    #[test]
    fn a_reason_is_new_once_until_it_changes_or_goes() {
        let id = ConnectionId::new("nsc-0").unwrap();
        let error = |why| Error::new("connect", Operation::Request, &id, Kind::Unavailable, why);
        let mut reason = Reason::default();
        let said = ["away", "away", "full", "away"].map(|why| reason.is_new(&error(why)));
        assert_eq!(said, [true, false, true, true]);
        assert!(reason.to_string().ends_with(" failed: away"), "{reason}");
        reason.forget();
        assert!(reason.is_new(&error("away")));
    }
}
