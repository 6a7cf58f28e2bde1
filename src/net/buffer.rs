//! A byte queue that owns no memory while it is empty.
//!
//! Buffers of the common size are kept per thread and lent, so that ten thousand idle connections
//! hold none, and a busy one allocates none.

use std::cell::RefCell;

/// The size of a lent buffer, in bytes. PostgreSQL sends at most 8 KiB at a time.
pub const CHUNK: usize = 16 * 1024;

/// So many are kept per thread for the next one who needs one.
const KEPT: usize = 32;

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes between `start` and `end` of lent or, beyond [`CHUNK`], of own memory.
#[derive(Debug, Default)]
pub struct Buffer {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// Takes `count` bytes off the front; gives the memory back with the last.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.is_empty() {
            self.release();
        }
    }

    /// Cuts everything behind the first `length` bytes off.
    pub fn truncate(&mut self, length: usize) {
        self.end = self.end.min(self.start + length);
        if self.is_empty() {
            self.release();
        }
    }

    /// Free space behind the bytes, at least one byte; bytes that are read into it are added with
    /// [`commit`](Self::commit).
    pub fn space(&mut self) -> &mut [u8] {
        if self.end == self.memory.len() {
            self.reserve(1);
        }
        &mut self.memory[self.end..]
    }

    pub fn commit(&mut self, count: usize) {
        self.end = (self.end + count).min(self.memory.len());
    }

    /// Gives the memory back if nothing is in it.
    pub fn release_if_empty(&mut self) {
        if self.is_empty() {
            self.release();
        }
    }

    /// Makes room for at least `count` more bytes.
    pub fn reserve(&mut self, count: usize) {
        if self.memory.len() - self.end >= count {
            return;
        }
        let length = self.len();
        let needed = length + count;
        if needed <= self.memory.len() {
            self.memory.copy_within(self.start..self.end, 0);
        } else {
            let mut larger = if needed <= CHUNK {
                borrow()
            } else {
                // Doubling, so that a message of many megabytes is not copied for every chunk.
                vec![0; needed.max(2 * length).next_multiple_of(CHUNK)].into_boxed_slice()
            };
            larger[..length].copy_from_slice(self.bytes());
            give_back(std::mem::replace(&mut self.memory, larger));
        }
        self.start = 0;
        self.end = length;
    }

    pub fn extend(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.memory[self.end..][..bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    fn release(&mut self) {
        give_back(std::mem::take(&mut self.memory));
        self.start = 0;
        self.end = 0;
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.release();
    }
}

fn borrow() -> Box<[u8]> {
    let spare = SPARE.with_borrow_mut(Vec::pop);
    spare.unwrap_or_else(|| vec![0; CHUNK].into_boxed_slice())
}

fn give_back(memory: Box<[u8]>) {
    if memory.len() == CHUNK {
        // A thread that is ending has no store any more; then the memory is simply freed.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < KEPT {
                spare.push(memory);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let mut buffer = Buffer::default();
        let all: Vec<u8> = (0..100_000u32).map(|number| number as u8).collect();
        let (mut put, mut got) = (0, Vec::new());
        let mut step = 1;
        while put < all.len() {
            let end = (put + step).min(all.len());
            buffer.extend(&all[put..end]);
            put = end;
            let take = buffer.len() / 2;
            got.extend_from_slice(&buffer.bytes()[..take]);
            buffer.consume(take);
            step = step * 3 % 30_011;
        }
        got.extend_from_slice(buffer.bytes());
        assert!(got == all);
    }

    #[test]
    fn an_empty_buffer_holds_no_memory() {
        let mut buffer = Buffer::default();
        buffer.extend(b"abc");
        assert_eq!(buffer.memory.len(), CHUNK);
        buffer.truncate(1);
        assert_eq!(buffer.bytes(), b"a");
        buffer.consume(1);
        assert_eq!(buffer.memory.len(), 0);
        assert_eq!(buffer.space().len(), CHUNK);
        buffer.release_if_empty();
        assert_eq!(buffer.memory.len(), 0);
    }
}
