//! What a caller may read and write within one space. Knows no tokens: the
//! shell turns a token into this.

use super::Refusal;
use gosync_proto::wire;
use gosync_proto::wire::Held;
use gosync_proto::{Key, KeyRange, RangeSet, Reason, mutant};

/// The caller's rights in the space of its request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Access {
    grants: Vec<(Vec<u8>, Right)>,
    read: RangeSet,
    write: RangeSet,
}

/// What a grant allows under its prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// Reading only.
    Read,
    /// Reading and writing.
    Write,
}

impl Access {
    /// From the grants for this space: key prefixes and what they allow. No
    /// grants is no access. A prefix longer than a key grants nothing.
    pub fn new(grants: Vec<(Vec<u8>, Right)>) -> Access {
        let ranges = |right: Option<Right>| {
            RangeSet::union(
                grants
                    .iter()
                    .filter(|(_, r)| right.is_none_or(|want| *r == want))
                    .filter_map(|(prefix, _)| KeyRange::prefix(prefix).ok())
                    .collect(),
            )
        };
        Access {
            read: ranges(None),
            write: ranges(Some(Right::Write)),
            grants,
        }
    }

    /// Everything in the space.
    pub fn full() -> Access {
        Access::new(vec![(Vec::new(), Right::Write)])
    }

    /// Whether a record with this key may be written.
    pub fn may_write(&self, key: &Key) -> bool {
        self.write.contains(key.as_bytes()) || mutant!(ReadersWrite)
    }

    /// Whether every key of the range may be read.
    pub fn may_read(&self, range: &KeyRange) -> bool {
        self.read
            .find(range.start())
            .is_some_and(|r| r.covers(range))
            || mutant!(PrefixIgnored)
    }

    /// As Hello reports it.
    pub fn to_wire(&self) -> Vec<wire::Grant> {
        self.grants
            .iter()
            .map(|(prefix, right)| wire::Grant {
                key_prefix: prefix.clone(),
                access: match right {
                    Right::Read => wire::Access::Read,
                    Right::Write => wire::Access::Write,
                } as i32,
            })
            .collect()
    }

    /// That there is any right at all.
    ///
    /// # Errors
    /// [`Reason::NoAccess`], the same as for a space that does not exist.
    pub fn check_any(&self) -> Result<(), Refusal> {
        if self.read.is_empty() {
            return Err(Refusal::no_access());
        }
        Ok(())
    }

    /// That every range may be read.
    ///
    /// # Errors
    /// [`Reason::NoAccess`].
    pub fn check_held(&self, held: &[Held]) -> Result<(), Refusal> {
        self.check_any()?;
        let allowed = held
            .iter()
            .flat_map(|h| &h.ranges)
            .all(|r| self.may_read(r));
        if allowed {
            Ok(())
        } else {
            Err(Refusal::no_access())
        }
    }
}

impl Refusal {
    /// One text for "not allowed" and "does not exist": neither is told apart.
    pub fn no_access() -> Refusal {
        Refusal::new(
            Reason::NoAccess,
            "the token grants no such access here, or there is no such space",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &[u8], end: Option<&[u8]>) -> KeyRange {
        KeyRange::new(start, end).unwrap()
    }

    #[test]
    fn a_write_grant_permits_reading_and_a_read_grant_no_writing() {
        let access = Access::new(vec![
            (b"a".to_vec(), Right::Write),
            (b"b".to_vec(), Right::Read),
        ]);
        assert!(access.may_read(&range(b"a", Some(b"c"))), "neighbours join");
        assert!(access.may_write(&Key::new(*b"ax").unwrap()));
        assert!(!access.may_write(&Key::new(*b"bx").unwrap()));
        assert!(!access.may_read(&range(b"a", Some(b"c\0"))));
        assert!(!access.may_read(&range(b"a", None)));
    }

    #[test]
    fn no_grants_are_no_access() {
        let access = Access::new(vec![]);
        assert_eq!(access.check_any().unwrap_err().reason, Reason::NoAccess);
        assert!(!access.may_read(&range(b"a", Some(b"b"))));
        assert!(Access::full().may_read(&KeyRange::all()));
    }
}
