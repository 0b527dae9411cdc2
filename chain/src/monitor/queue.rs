use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use carrick_types::{Connection, ConnectionId};

use super::EventKind;

/// What one subscriber has not read yet. Pure.
///
/// Up to [`Queue::SOFT_MAX`] items it holds every event. Beyond that it keeps
/// only the last one of each connection, and nothing of a connection that came
/// and went unseen. So its length is bounded by the connections the reader has
/// heard of and those that live now, however long it does not read, and the
/// last state of each always arrives.
#[derive(Debug)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    coalesce_at: usize,
}

#[derive(Debug)]
pub(super) struct Item {
    pub(super) kind: EventKind,
    pub(super) connection: Arc<Connection>,
    /// No event of this connection had been published before.
    pub(super) first: bool,
}

impl Queue {
    /// Items held before events of one connection are merged.
    pub(super) const SOFT_MAX: usize = 64;

    pub(super) fn new() -> Self {
        Self {
            items: VecDeque::new(),
            coalesce_at: Self::SOFT_MAX,
        }
    }

    pub(super) fn push(&mut self, item: Item) {
        if self.items.len() >= self.coalesce_at {
            self.coalesce();
            // Twice what is left, so that the walk costs O(1) per event.
            self.coalesce_at = Self::SOFT_MAX.max(self.items.len() * 2);
        }
        self.items.push_back(item);
    }

    pub(super) fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front();
        if self.items.is_empty() {
            // An idle subscriber holds no buffer.
            *self = Self::new();
        }
        item
    }

    /// Keeps the last item of each connection at its place.
    fn coalesce(&mut self) {
        let mut last: HashMap<ConnectionId, (usize, bool)> = HashMap::new();
        for (position, item) in self.items.iter().enumerate() {
            match last.entry(item.connection.id.clone()) {
                Entry::Occupied(mut seen) => seen.get_mut().0 = position,
                Entry::Vacant(unseen) => {
                    unseen.insert((position, item.first));
                }
            }
        }
        let items = std::mem::take(&mut self.items);
        self.items = (items.into_iter().enumerate())
            .filter_map(|(position, mut item)| {
                let (kept, first) = last[&item.connection.id];
                item.first = first;
                let came_and_went = first && item.kind == EventKind::Delete;
                (position == kept && !came_and_went).then_some(item)
            })
            .collect();
    }
}
