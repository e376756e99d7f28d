//! The keys of a tree, end to end in one allocation. Knows no order.
//!
//! An allocation for each key would take 28 bytes beside the key itself (a
//! pointer, a length, what the allocator adds), and the keys of neighbours
//! would lie apart. Bytes of removed keys stay until they are half of all.

use std::ops::Index;

/// Byte strings by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    bytes: Vec<u8>,
    places: Vec<Place>,
    /// Bytes that no place names any more.
    dead: usize,
}

/// Where a key lies: start << 16 | length. Keys have at most 512 bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Place(u64);

impl Place {
    fn len(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    fn range(self) -> std::ops::Range<usize> {
        let start = (self.0 >> 16) as usize;
        start..start + self.len()
    }
}

impl Keys {
    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn reserve(&mut self, keys: usize, bytes: usize) {
        self.places.reserve_exact(keys);
        self.bytes.reserve_exact(bytes);
    }

    /// A new number.
    pub fn push(&mut self, key: &[u8]) -> usize {
        let place = self.append(key);
        room(&mut self.places, 1);
        self.places.push(place);
        self.places.len() - 1
    }

    /// Another key under a number that was cleared.
    pub fn set(&mut self, number: usize, key: &[u8]) {
        self.places[number] = self.append(key);
    }

    /// The number stays, for another key.
    pub fn clear(&mut self, number: usize) {
        self.dead += std::mem::take(&mut self.places[number]).len();
        if self.dead > self.bytes.len() / 2 {
            let mut bytes = Vec::with_capacity(self.bytes.len() - self.dead);
            for place in &mut self.places {
                let start = bytes.len();
                bytes.extend_from_slice(&self.bytes[place.range()]);
                *place = Place((start as u64) << 16 | place.len() as u64);
            }
            self.bytes = bytes;
            self.dead = 0;
        }
    }

    pub fn memory(&self) -> usize {
        self.bytes.capacity() + self.places.capacity() * size_of::<Place>()
    }

    fn append(&mut self, key: &[u8]) -> Place {
        debug_assert!(key.len() <= 0xffff);
        let start = self.bytes.len();
        room(&mut self.bytes, key.len());
        self.bytes.extend_from_slice(key);
        Place((start as u64) << 16 | key.len() as u64)
    }
}

impl Index<usize> for Keys {
    type Output = [u8];

    fn index(&self, number: usize) -> &[u8] {
        &self.bytes[self.places[number].range()]
    }
}

/// Makes room for `more` entries, an eighth at a time: a tree that doubled its
/// arrays with the first change would take twice what it needs.
pub(super) fn room<T>(array: &mut Vec<T>, more: usize) {
    if array.capacity() - array.len() < more {
        array.reserve_exact(more.max(array.len() / 8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_what_they_are_while_others_go() {
        let name = |i: usize| format!("key {i}").into_bytes();
        let mut keys = Keys::default();
        for i in 0..1000 {
            assert_eq!(keys.push(&name(i)), i);
        }
        let full = keys.bytes.len();
        for i in 0..900 {
            keys.clear(i);
        }
        assert!(keys.bytes.len() < full / 3, "dead bytes go");
        keys.set(7, b"another");
        assert_eq!(keys[7], *b"another");
        assert!((900..1000).all(|i| keys[i] == *name(i)));
        assert!(keys[8].is_empty());
    }

    #[test]
    fn arrays_grow_by_an_eighth() {
        let mut array = vec![0; 8000];
        array.shrink_to_fit();
        room(&mut array, 1);
        assert_eq!(array.capacity(), 9000);
        room(&mut array, 1);
        assert_eq!(array.capacity(), 9000);
    }
}
