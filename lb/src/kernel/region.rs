//! A table of the program, mapped into this process.
#![expect(
    unsafe_code,
    reason = "mapped memory is shared with the kernel's program; every access goes through atomics"
)]

use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The values of an array map. The packet program reads and writes them at
/// the same time, so there are no references into it, only loads and stores.
#[derive(Debug)]
pub struct Region {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory is reached through atomics only, and unmapped by the one owner.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Maps the first `length` bytes of a map's values.
    pub(super) fn map(fd: impl AsFd, length: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd,
                0,
            )
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }

    /// Its size in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// A place of `T`s, checked: within the region and aligned.
    fn place<T>(&self, offset: usize) -> NonNull<T> {
        assert!(
            offset.is_multiple_of(size_of::<T>()) && offset + size_of::<T>() <= self.length,
            "offset {offset} is outside a table of {} bytes",
            self.length
        );
        // SAFETY: the sum stays within the mapping, as was just checked.
        unsafe { self.start.add(offset) }.cast()
    }

    fn byte(&self, offset: usize) -> &AtomicU8 {
        // SAFETY: checked place in mapped memory that lives as long as `self`.
        unsafe { self.place::<AtomicU8>(offset).as_ref() }
    }

    /// The 4 bytes at an offset.
    #[must_use]
    pub fn word(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as for `byte`; the mapping begins at a page, so the place is aligned.
        unsafe { self.place::<AtomicU32>(offset).as_ref() }
    }

    /// The 8 bytes at an offset.
    #[must_use]
    pub fn long(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: as for `word`.
        unsafe { self.place::<AtomicU64>(offset).as_ref() }
    }

    /// Copies bytes out.
    #[must_use]
    pub fn read<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        self.read_into(offset, &mut bytes);
        bytes
    }

    /// Copies bytes out, eight at a time where they are aligned.
    pub fn read_into(&self, offset: usize, bytes: &mut [u8]) {
        let mut chunks = bytes.chunks_exact_mut(8);
        let mut at = offset;
        if offset.is_multiple_of(8) {
            for chunk in &mut chunks {
                chunk.copy_from_slice(&self.long(at).load(Ordering::Relaxed).to_le_bytes());
                at += 8;
            }
            for byte in chunks.into_remainder() {
                *byte = self.byte(at).load(Ordering::Relaxed);
                at += 1;
            }
        } else {
            for (at, byte) in (offset..).zip(bytes) {
                *byte = self.byte(at).load(Ordering::Relaxed);
            }
        }
    }

    /// Copies bytes in, eight at a time where they are aligned.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let mut at = offset;
        let whole = if offset.is_multiple_of(8) {
            bytes.len() / 8 * 8
        } else {
            0
        };
        let (words, rest) = bytes.split_at(whole);
        for chunk in words.chunks_exact(8) {
            self.long(at).store(word(chunk), Ordering::Release);
            at += 8;
        }
        for byte in rest {
            self.byte(at).store(*byte, Ordering::Release);
            at += 1;
        }
    }
}

fn word(eight: &[u8]) -> u64 {
    u64::from_le_bytes(eight.try_into().expect("chunks have 8 bytes"))
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it outlives `self`.
        // Unmapping what was mapped does not fail.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}
