use std::collections::VecDeque;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any packet is under way in the program.
const GRACE: Duration = Duration::from_millis(20);

/// Gives out ranges of a table. What is given back is used again only when no
/// packet can still be reading it.
#[derive(Debug)]
pub(super) struct Arena {
    free: Vec<Range<u32>>,
    retired: VecDeque<(Instant, Range<u32>)>,
}

impl Arena {
    pub(super) fn new(size: u32) -> Self {
        Self {
            free: std::iter::once(0..size).collect(),
            retired: VecDeque::new(),
        }
    }

    /// Takes a range that was in use before this process.
    pub(super) fn adopt(&mut self, taken: &Range<u32>) {
        if taken.is_empty() {
            return;
        }
        self.free = self
            .free
            .drain(..)
            .flat_map(|free| {
                let before = free.start..free.end.min(taken.start);
                let after = free.start.max(taken.end)..free.end;
                [before, after]
            })
            .filter(|range| !range.is_empty())
            .collect();
    }

    /// A range of that length, the first that fits.
    pub(super) fn take(&mut self, length: u32, now: Instant) -> Option<Range<u32>> {
        if length == 0 {
            return Some(0..0);
        }
        self.reclaim(now);
        let range = self
            .free
            .iter_mut()
            .find(|range| range.end - range.start >= length)?;
        let start = range.start;
        range.start += length;
        self.free.retain(|range| !range.is_empty());
        Some(start..start + length)
    }

    /// The same; waits for what packets can still be reading where nothing else
    /// is left, which is at most some milliseconds.
    #[expect(
        clippy::disallowed_methods,
        reason = "changes are made on a thread of their own"
    )]
    pub(super) fn take_waiting(&mut self, length: u32) -> Option<Range<u32>> {
        loop {
            let taken = self.take(length, Instant::now());
            let due = self.retired.front().map(|(since, _)| *since + GRACE);
            match (taken, due) {
                (None, Some(due)) => thread::sleep(due.saturating_duration_since(Instant::now())),
                (taken, _) => return taken,
            }
        }
    }

    /// Gives a range back.
    pub(super) fn retire(&mut self, range: Range<u32>, now: Instant) {
        if !range.is_empty() {
            self.retired.push_back((now, range));
        }
    }

    fn reclaim(&mut self, now: Instant) {
        while let Some((since, _)) = self.retired.front() {
            if now.duration_since(*since) < GRACE {
                break;
            }
            let (_, range) = self.retired.pop_front().expect("there is a front");
            self.free.push(range);
        }
        self.free.sort_unstable_by_key(|range| range.start);
        let mut merged: Vec<Range<u32>> = Vec::with_capacity(self.free.len());
        for range in self.free.drain(..) {
            match merged.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => merged.push(range),
            }
        }
        self.free = merged;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_rests_before_it_is_used_again() {
        let start = Instant::now();
        let mut arena = Arena::new(10);
        let first = arena.take(10, start).unwrap();
        arena.retire(first, start);
        assert_eq!(arena.take(10, start), None);
        assert_eq!(arena.take(10, start + GRACE), Some(0..10));
    }

    #[test]
    fn who_needs_what_still_rests_waits_for_it() {
        let mut arena = Arena::new(10);
        let first = arena.take(10, Instant::now()).unwrap();
        arena.retire(first, Instant::now());
        assert_eq!(arena.take_waiting(10), Some(0..10));
        assert_eq!(arena.take_waiting(1), None, "nothing is under way");
    }

    #[test]
    fn what_was_adopted_is_not_given_out() {
        let start = Instant::now();
        let mut arena = Arena::new(10);
        arena.adopt(&(3..6));
        assert_eq!(arena.take(4, start), Some(6..10));
        assert_eq!(arena.take(3, start), Some(0..3));
        assert_eq!(arena.take(1, start), None);
    }
}
