//! Every limit: its default, the floor that each implementation must support,
//! the ceiling, and the checks that both sides share. Knows nothing of who enforces when.

use crate::key::Key;
use crate::mutant;
use crate::reason::Invalid;
use crate::record::Record;
use crate::wire;

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $default:expr, floor $floor:expr, ceiling $ceiling:expr;)*) => {
        /// What a server allows. Field for field the message
        /// `gosync.v1.Limits`; 0 means "no such limit" where the floor is 0.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct Limits { $($(#[$doc])* pub $name: u64,)* }

        impl Default for Limits {
            fn default() -> Limits { Limits { $($name: $default,)* } }
        }

        impl Limits {
            /// The least that an implementation must support. A server may
            /// not advertise less; a replica may rely on it before Hello.
            pub const FLOOR: Limits = Limits { $($name: $floor,)* };

            /// The most that a server may advertise, so that replicas can bound
            /// the messages that they accept; `u64::MAX` where there is no bound.
            pub const CEILING: Limits = Limits { $($name: $ceiling,)* };

            /// Names and values, in schema order.
            pub fn entries(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }

            /// Sets a limit by its name, for configuration files; `false` when
            /// there is none of that name.
            pub fn set(&mut self, name: &str, value: u64) -> bool {
                match name {
                    $(stringify!($name) => self.$name = value,)*
                    _ => return false,
                }
                true
            }

            /// As the message that Hello carries.
            pub fn to_wire(&self) -> wire::Limits {
                wire::Limits { $($name: self.$name,)* }
            }

            /// From a server's Hello. A value below the floor is raised to
            /// it: such a server breaks the specification, and requests at
            /// the floor must be tried all the same. Likewise one above the
            /// ceiling is lowered.
            pub fn from_wire(l: &wire::Limits) -> Limits {
                let read = |told: u64, floor: u64, ceiling: u64| {
                    let floor = if mutant!(FloorNotAssumed) { 0 } else { floor };
                    let ceiling = if mutant!(CeilingNotAssumed) { u64::MAX } else { ceiling };
                    told.max(floor).min(ceiling)
                };
                Limits { $($name: read(l.$name, $floor, $ceiling),)* }
            }
        }
    };
}

/// What is wrong with a limit that a server is to advertise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OutOfBounds {
    /// It is below its floor.
    #[error("below {0}, the least that the protocol promises to replicas")]
    Below(u64),
    /// It is above its ceiling.
    #[error("above {0}, the most that replicas are sure to take")]
    Above(u64),
}

/// No ceiling.
const ANY: u64 = u64::MAX;

limits! {
    /// Encoded bytes of a request message after decompression.
    max_message_bytes: 4 << 20, floor 1 << 20, ceiling ANY;
    /// Bytes of a value.
    max_value_bytes: 1 << 20, floor 64 << 10, ceiling 16 << 20;
    /// Records in one Push.
    max_push_records: 5_000, floor 100, ceiling ANY;
    /// Ranges in the HeldRanges of one request.
    max_ranges: 256, floor 16, ceiling ANY;
    /// Parts and items in one Reconcile request.
    max_reconcile_entries: 400_000, floor 1_000, ceiling ANY;
    /// Bytes of a Reconcile answer or of one stream message.
    max_response_bytes: 2 << 20, floor 64 << 10, ceiling 16 << 20;
    /// How far ahead of the server's clock a version may be, milliseconds.
    max_clock_skew_ms: 300_000, floor 1_000, ceiling ANY;
    /// Concurrent calls of one connection.
    max_streams_per_connection: 32, floor 8, ceiling ANY;
    /// Records and tombstones of a space; 0 is unlimited.
    max_space_records: 0, floor 0, ceiling ANY;
    /// Key and value bytes of a space; 0 is unlimited.
    max_space_bytes: 0, floor 0, ceiling ANY;
    /// A Watch is never silent for longer, milliseconds.
    heartbeat_interval_ms: 15_000, floor 100, ceiling ANY;
    /// A replica gives a silent Watch up after this long, milliseconds.
    watchdog_ms: 45_000, floor 300, ceiling ANY;
    /// A Watch is ended after this long, milliseconds; 0 is never.
    max_stream_lifetime_ms: 3_600_000, floor 0, ceiling ANY;
    /// Sustained calls per second of one token in one space; 0 is unlimited.
    max_calls_per_second: 0, floor 0, ceiling ANY;
}

impl Limits {
    /// Which limits a server may not advertise, and what is wrong.
    pub fn out_of_bounds(&self) -> Vec<(&'static str, OutOfBounds)> {
        let bounds = Limits::FLOOR.entries().into_iter();
        let bounds = bounds.zip(Limits::CEILING.entries());
        let judged = |((name, value), ((_, floor), (_, ceiling)))| match value {
            value if value < floor => Some((name, OutOfBounds::Below(floor))),
            value if value > ceiling => Some((name, OutOfBounds::Above(ceiling))),
            _ => None,
        };
        let entries = self.entries().into_iter();
        entries.zip(bounds).filter_map(judged).collect()
    }

    /// Checks one record of a Push against the limits on its parts.
    ///
    /// # Errors
    /// [`crate::Reason::LimitExceeded`] naming the field.
    pub fn check_record(&self, record: &Record) -> Result<(), Invalid> {
        let value = record.content.value().len() as u64;
        let most = self.max_value_bytes - u64::from(mutant!(LargestValueRefused));
        if value > most && !mutant!(ValueSizeUnchecked) {
            return Err(Invalid::limit(
                "value",
                "max_value_bytes",
                self.max_value_bytes,
                value,
            ));
        }
        Ok(())
    }

    /// An upper bound of a record's encoded size in a repeated field.
    pub fn encoded_bound(key: &Key, value_bytes: usize) -> usize {
        key.as_bytes().len() + value_bytes + 48
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_lie_between_floor_and_ceiling() {
        assert_eq!(Limits::default().out_of_bounds(), []);
        assert_eq!(Limits::FLOOR.out_of_bounds(), []);
        assert_eq!(Limits::CEILING.out_of_bounds(), []);
    }

    #[test]
    fn a_server_below_the_floor_is_read_as_the_floor() {
        let l = Limits::from_wire(&wire::Limits::default());
        assert_eq!(l, Limits::FLOOR);
        let d = Limits::default();
        assert_eq!(Limits::from_wire(&d.to_wire()), d);
    }

    #[test]
    fn a_server_above_the_ceiling_is_read_as_the_ceiling() {
        let mut told = Limits::CEILING;
        told.max_value_bytes += 1;
        told.max_response_bytes = u64::MAX;
        let wrong = told.out_of_bounds();
        let above = OutOfBounds::Above(16 << 20);
        assert_eq!(
            wrong,
            [("max_value_bytes", above), ("max_response_bytes", above)]
        );
        assert_eq!(Limits::from_wire(&told.to_wire()), Limits::CEILING);
    }
}
