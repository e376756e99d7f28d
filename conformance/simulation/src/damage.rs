//! What befalls records behind everybody's back, one kind at a time: for the
//! trial at the end of a run and for the table of what healing costs.

use crate::device::Device;
use crate::server::Server;
use gosync_proto::{Key, Record, SpaceId};

/// What befalls records.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// The content is spoilt under its digest.
    Corrupt,
    /// The record is gone without a trace.
    Drop,
    /// An older record stands there again.
    RollBack,
    /// A record stands there of which nobody was told.
    Add,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Corrupt, Kind::Drop, Kind::RollBack, Kind::Add];

    /// For people.
    pub fn about(self) -> &'static str {
        match self {
            Kind::Corrupt => "content spoilt",
            Kind::Drop => "gone without a trace",
            Kind::RollBack => "an older version is back",
            Kind::Add => "added without a commit",
        }
    }
}

/// Where it happens.
#[derive(Clone, Copy)]
pub enum Side<'a> {
    /// On the server, in this space.
    Server(&'a Server, &'a SpaceId),
    /// On a device.
    Device(&'a Device),
}

impl Side<'_> {
    /// Spoils content under its digest.
    ///
    /// # Errors
    /// The server's file cannot be written.
    pub fn spoil(&self, key: &Key) -> anyhow::Result<()> {
        match self {
            Side::Server(server, space) => drop(server.damage(space, key)?),
            Side::Device(device) => device.damage(key),
        }
        Ok(())
    }

    /// Puts a record under a key, or nothing; `false` when there is no place for
    /// it.
    ///
    /// # Errors
    /// The server's file cannot be written.
    pub fn put(&self, key: &Key, record: Option<&Record>) -> anyhow::Result<bool> {
        match self {
            Side::Server(server, space) => server.tamper(space, key, record),
            Side::Device(device) => {
                device.tamper(key, record);
                Ok(true)
            }
        }
    }
}
