//! Epochs, cursors and the horizon: where a replica stands in a server's
//! history, and whether a record that the server does not have was deleted or
//! lost. Knows no store: it decides from the facts that it is given.
//!
//! Where deletion and loss cannot be told apart, loss is worse: the record is
//! kept.

use crate::mutant;
use crate::version::{Time, Version};
use crate::wire;

/// The random identity of a store's lineage.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Epoch(pub u64);

/// A place in one epoch's history: after the commit step `sequence`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Point {
    /// Whose sequence it is.
    pub epoch: Epoch,
    /// Gap-free per space, in commit order; 0 is before the first commit.
    pub sequence: u64,
}

/// The end of a commit: a point and the tag drawn for that commit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cursor {
    /// Epoch and sequence.
    pub point: Point,
    /// Random per commit; 0 for sequence 0.
    pub tag: u64,
}

impl Cursor {
    /// Before the first commit of `epoch`.
    pub fn origin(epoch: Epoch) -> Cursor {
        Cursor {
            point: Point { epoch, sequence: 0 },
            tag: 0,
        }
    }

    /// As a message.
    pub fn to_wire(self) -> wire::Cursor {
        wire::Cursor {
            epoch: self.point.epoch.0,
            sequence: self.point.sequence,
            tag: self.tag,
        }
    }
}

impl From<wire::Cursor> for Cursor {
    fn from(c: wire::Cursor) -> Cursor {
        Cursor {
            point: Point {
                epoch: Epoch(c.epoch),
                sequence: c.sequence,
            },
            tag: c.tag,
        }
    }
}

/// The state of a store that an answer was computed from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Position {
    /// The newest commit.
    pub head: Cursor,
    /// Tombstones with a version time below this are outside every
    /// fingerprint and may be gone.
    pub horizon: Time,
}

impl Position {
    /// As a message.
    pub fn to_wire(self) -> wire::Position {
        wire::Position {
            head: Some(self.head.to_wire()),
            horizon: self.horizon.0,
        }
    }

    /// From a message; `None` when the head is missing.
    pub fn from_wire(p: &wire::Position) -> Option<Position> {
        Some(Position {
            head: p.head?.into(),
            horizon: Time(p.horizon),
        })
    }
}

/// How a cursor relates to the server's present history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lineage {
    /// It is a point of it.
    Same,
    /// A restored backup cut the history back.
    Rewound,
    /// It cannot be placed.
    Unknown,
}

/// Where a replica stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HistoryStatus {
    /// How its cursor relates to the present history.
    pub lineage: Lineage,
    /// The highest sequence of the present epoch that it is known to have
    /// followed.
    pub mapped_sequence: u64,
    /// Tombstones that it has not seen may have been compacted away.
    pub behind_compaction: bool,
}

impl HistoryStatus {
    /// Whether the replica may go on from its cursor without reconciling.
    pub fn in_order(&self) -> bool {
        self.lineage == Lineage::Same && !self.behind_compaction
    }

    /// The worse of two: the worse lineage, the lower sequence, behind if
    /// either is.
    #[must_use]
    pub fn worse(self, other: HistoryStatus) -> HistoryStatus {
        HistoryStatus {
            lineage: self.lineage.max(other.lineage),
            mapped_sequence: self.mapped_sequence.min(other.mapped_sequence),
            behind_compaction: self.behind_compaction || other.behind_compaction,
        }
    }

    /// As a message.
    pub fn to_wire(self) -> wire::HistoryStatus {
        wire::HistoryStatus {
            lineage: match self.lineage {
                Lineage::Same => wire::Lineage::Same,
                Lineage::Rewound => wire::Lineage::Rewound,
                Lineage::Unknown => wire::Lineage::Unknown,
            } as i32,
            mapped_sequence: self.mapped_sequence,
            behind_compaction: self.behind_compaction,
        }
    }

    /// From a message. An unspecified or unknown lineage is
    /// [`Lineage::Unknown`], the one that keeps data.
    pub fn from_wire(s: &wire::HistoryStatus) -> HistoryStatus {
        HistoryStatus {
            lineage: match s.lineage() {
                wire::Lineage::Same => Lineage::Same,
                wire::Lineage::Rewound => Lineage::Rewound,
                wire::Lineage::Unspecified if mutant!(UnknownLineageIsSame) => Lineage::Same,
                wire::Lineage::Unknown | wire::Lineage::Unspecified => Lineage::Unknown,
            },
            mapped_sequence: s.mapped_sequence,
            behind_compaction: s.behind_compaction,
        }
    }
}

/// The present epoch and the earlier ones that it continues.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ancestry {
    /// The present epoch.
    pub epoch: Epoch,
    /// For each earlier epoch, oldest first, how far its history was kept
    /// when it was left.
    pub restore_points: Vec<Point>,
}

impl Ancestry {
    /// From the parts of an answer.
    pub fn from_wire(epoch: Epoch, points: &[wire::RestorePoint]) -> Ancestry {
        Ancestry {
            epoch,
            restore_points: points
                .iter()
                .map(|p| Point {
                    epoch: Epoch(p.epoch),
                    sequence: p.sequence,
                })
                .collect(),
        }
    }

    /// As the list that answers carry.
    pub fn to_wire(&self) -> Vec<wire::RestorePoint> {
        self.restore_points
            .iter()
            .map(|p| wire::RestorePoint {
                epoch: p.epoch.0,
                sequence: p.sequence,
            })
            .collect()
    }

    /// The highest sequence at which the history of `epoch` still agrees with
    /// the present one: the lowest restore point from that epoch on.
    /// `None` when `epoch` is not an ancestor; the present epoch itself has no
    /// bound (`u64::MAX`).
    pub fn kept_until(&self, epoch: Epoch) -> Option<u64> {
        if epoch == self.epoch {
            return Some(u64::MAX);
        }
        let from = self.restore_points.iter().position(|p| p.epoch == epoch)?;
        self.restore_points[from..].iter().map(|p| p.sequence).min()
    }

    /// Whether what happened at `point` is part of the present history, given
    /// the lineage that the server found for the replica: under
    /// [`Lineage::Unknown`] no point is.
    pub fn contains(&self, point: Point, lineage: Lineage) -> bool {
        (lineage != Lineage::Unknown || mutant!(PointsBelieved))
            && self
                .kept_until(point.epoch)
                .is_some_and(|kept| point.sequence <= kept)
    }
}

/// What a server knows when it judges a cursor.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    /// Its lineage.
    pub ancestry: &'a Ancestry,
    /// The newest sequence of the present epoch.
    pub head: u64,
    /// The highest sequence of any compacted tombstone (M); 0 if none.
    pub compacted_through: u64,
}

/// What a server answers about a cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judgement {
    /// The replica's standing.
    Status(HistoryStatus),
    /// The cursor is ahead of this store. A node that is not authoritative
    /// answers LAGGING; the authoritative one takes the history as unknown.
    Ahead,
}

impl Judge<'_> {
    /// Places a cursor. `tag_at` looks up the tag of the commit that ends at a
    /// sequence of the present history, `None` when no commit ends there.
    pub fn place(
        &self,
        cursor: Option<Cursor>,
        tag_at: impl FnOnce(u64) -> Option<u64>,
    ) -> Judgement {
        let Some(cursor) = cursor else {
            return Judgement::Status(self.status(Lineage::Same, 0));
        };
        let Point { epoch, sequence } = cursor.point;
        if mutant!(EpochIgnored) {
            return Judgement::Status(self.status(Lineage::Same, sequence));
        }
        let Some(kept) = self.ancestry.kept_until(epoch) else {
            return Judgement::Status(self.status(Lineage::Unknown, 0));
        };
        let present = epoch == self.ancestry.epoch;
        if present && sequence > self.head && mutant!(AheadAccepted) {
            return Judgement::Status(self.status(Lineage::Same, sequence));
        }
        if present && sequence > self.head {
            return Judgement::Ahead;
        }
        // Beyond the restore point the commit is gone, and its tag with it.
        let genuine = sequence == 0
            || sequence > kept
            || tag_at(sequence) == Some(cursor.tag)
            || mutant!(TagIgnored);
        let kept = if mutant!(RestorePointIgnored) {
            u64::MAX
        } else {
            kept
        };
        Judgement::Status(match (genuine, present) {
            (false, _) => self.unknown(),
            (true, true) => self.status(Lineage::Same, sequence),
            (true, false) => self.status(Lineage::Rewound, sequence.min(kept)),
        })
    }

    /// The status of a replica that the authoritative server cannot place.
    pub fn unknown(&self) -> HistoryStatus {
        self.status(Lineage::Unknown, 0)
    }

    fn status(&self, lineage: Lineage, mapped_sequence: u64) -> HistoryStatus {
        HistoryStatus {
            lineage,
            mapped_sequence,
            behind_compaction: mapped_sequence < self.compacted_through,
        }
    }
}

/// What became of a clean record that the server does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missing {
    /// It was deleted and the tombstone compacted: drop it.
    Deleted,
    /// The server lost it: offer it again.
    Lost,
}

/// Decides about a clean record of `version`, acknowledged or received at
/// `point`, that the server lacks after the records of its range are merged.
/// `present` is [`Ancestry::contains`] of that point.
pub fn missing_record(
    present: bool,
    behind_compaction: bool,
    version: Version,
    horizon: Time,
) -> Missing {
    if present && behind_compaction && version.time < horizon {
        Missing::Deleted
    } else {
        Missing::Lost
    }
}

/// Whether a server must refuse a pushed record for compaction: the pusher is
/// behind for the key and the version is below the horizon. At or above the
/// horizon no vanished tombstone could beat it.
pub fn behind_for(status: &HistoryStatus, version: Version, horizon: Time) -> bool {
    status.behind_compaction && version.time < horizon
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::ReplicaId;

    fn ancestry() -> Ancestry {
        // epoch 1 was cut at 100, epoch 2 at 40 (below what epoch 1 gave it)
        Ancestry {
            epoch: Epoch(3),
            restore_points: vec![
                Point {
                    epoch: Epoch(1),
                    sequence: 100,
                },
                Point {
                    epoch: Epoch(2),
                    sequence: 40,
                },
            ],
        }
    }

    fn cursor(epoch: u64, sequence: u64, tag: u64) -> Option<Cursor> {
        Some(Cursor {
            point: Point {
                epoch: Epoch(epoch),
                sequence,
            },
            tag,
        })
    }

    fn place(c: Option<Cursor>, m: u64) -> Judgement {
        let a = ancestry();
        let judge = Judge {
            ancestry: &a,
            head: 200,
            compacted_through: m,
        };
        judge.place(c, |sequence| (sequence % 10 == 0).then_some(sequence + 5))
    }

    fn status(lineage: Lineage, mapped_sequence: u64, behind_compaction: bool) -> Judgement {
        Judgement::Status(HistoryStatus {
            lineage,
            mapped_sequence,
            behind_compaction,
        })
    }

    #[test]
    fn a_cursor_of_the_present_epoch_is_placed_by_its_tag() {
        assert_eq!(
            place(cursor(3, 150, 155), 0),
            status(Lineage::Same, 150, false)
        );
        assert_eq!(
            place(cursor(3, 150, 1), 0),
            status(Lineage::Unknown, 0, false)
        );
        assert_eq!(
            place(cursor(3, 151, 156), 0),
            status(Lineage::Unknown, 0, false)
        );
        assert_eq!(place(cursor(3, 0, 0), 0), status(Lineage::Same, 0, false));
    }

    #[test]
    fn a_cursor_beyond_the_head_is_never_silently_accepted() {
        assert_eq!(place(cursor(3, 201, 0), 0), Judgement::Ahead);
    }

    #[test]
    fn an_ancestors_cursor_is_cut_at_the_lowest_restore_point_on_the_way() {
        assert_eq!(
            place(cursor(1, 90, 0), 0),
            status(Lineage::Rewound, 40, false)
        );
        assert_eq!(
            place(cursor(2, 30, 35), 0),
            status(Lineage::Rewound, 30, false)
        );
        assert_eq!(
            place(cursor(9, 30, 35), 0),
            status(Lineage::Unknown, 0, false)
        );
    }

    #[test]
    fn an_ancestors_cursor_with_another_tag_is_of_a_history_that_was_replaced() {
        assert_eq!(
            place(cursor(2, 30, 1), 0),
            status(Lineage::Unknown, 0, false)
        );
        assert_eq!(
            place(cursor(2, 31, 36), 0),
            status(Lineage::Unknown, 0, false)
        );
    }

    #[test]
    fn no_cursor_counts_as_sequence_0_and_is_behind_any_compaction() {
        assert_eq!(place(None, 0), status(Lineage::Same, 0, false));
        assert_eq!(place(None, 1), status(Lineage::Same, 0, true));
        assert_eq!(
            place(cursor(3, 150, 155), 151),
            status(Lineage::Same, 150, true)
        );
        assert_eq!(
            place(cursor(3, 150, 155), 150),
            status(Lineage::Same, 150, false)
        );
    }

    #[test]
    fn points_beyond_a_restore_point_are_not_in_the_present_history() {
        let a = ancestry();
        let at = |epoch, sequence| Point {
            epoch: Epoch(epoch),
            sequence,
        };
        assert!(a.contains(at(1, 40), Lineage::Rewound));
        assert!(!a.contains(at(1, 41), Lineage::Rewound));
        assert!(a.contains(at(3, 999), Lineage::Same));
        assert!(!a.contains(at(3, 1), Lineage::Unknown));
        assert!(!a.contains(at(8, 1), Lineage::Same));
    }

    #[test]
    fn only_an_old_record_of_a_replica_behind_the_compaction_counts_as_deleted() {
        let v = |t| Version {
            time: Time(t),
            replica: ReplicaId(0),
        };
        assert_eq!(missing_record(true, true, v(9), Time(10)), Missing::Deleted);
        assert_eq!(missing_record(false, true, v(9), Time(10)), Missing::Lost);
        assert_eq!(missing_record(true, false, v(9), Time(10)), Missing::Lost);
        assert_eq!(missing_record(true, true, v(10), Time(10)), Missing::Lost);
    }
}
