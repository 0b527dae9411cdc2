//! What to do about a connection that may be broken (NSM `heal`). Pure.

/// Whether the endpoint and those in between say that they serve the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Control {
    Down,
    Up,
}

/// Whether packets go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Data {
    Alive,
    Dead,
    /// Nobody looks.
    Unknown,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Heal {
    Nothing,
    /// Ask again for what there is.
    Request,
    /// Close it and ask for a new one.
    Reselect,
}

/// NSM's table. Working traffic is not thrown away because the control plane
/// is, and without a probe a lost control plane counts as lost traffic.
pub(super) fn decide(control: Control, data: Data) -> Heal {
    match (control, data) {
        (Control::Up, Data::Alive | Data::Unknown) => Heal::Nothing,
        (Control::Down, Data::Alive) => Heal::Request,
        (Control::Down, Data::Dead | Data::Unknown) | (Control::Up, Data::Dead) => Heal::Reselect,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn working_traffic_is_kept_and_dead_traffic_is_not() {
        let table = [
            (Control::Up, Data::Alive, Heal::Nothing),
            (Control::Up, Data::Unknown, Heal::Nothing),
            (Control::Up, Data::Dead, Heal::Reselect),
            (Control::Down, Data::Alive, Heal::Request),
            (Control::Down, Data::Unknown, Heal::Reselect),
            (Control::Down, Data::Dead, Heal::Reselect),
        ];
        for (control, data, heal) in table {
            assert_eq!(decide(control, data), heal, "{control:?}, {data:?}");
        }
    }
}
