//! The worlds: who is there, what happens to them, and what must hold all the
//! same. Knows no mechanics.

use crate::storage::Keeps;
use crate::user::Habits;

/// What may happen in a world, each with a weight; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The network changes for the worse or the better.
    pub weather: u64,
    /// A device is cut off for a while.
    pub cut: u64,
    /// A device's requests arrive, and no answer comes back.
    pub half_open: u64,
    /// A device dies and is opened again.
    pub crash: u64,
    /// A user switches a device off, and on again much later.
    pub away: u64,
    /// A device loses its store.
    pub lose_store: u64,
    /// A device's clock goes wrong, up to so many milliseconds.
    pub clock: u64,
    /// How wrong clocks go, milliseconds either way.
    pub clock_ms: i64,
    /// The server's clock goes wrong too.
    pub server_clock: u64,
    /// The server is killed and started again.
    pub restart: u64,
    /// One of several is, and the others go on.
    pub restart_one: u64,
    /// The server loses its database.
    pub wipe: u64,
    /// The server goes back to a backup.
    pub restore: u64,
    /// Tombstones are compacted.
    pub compact: u64,
    /// Stored content rots on the server.
    pub server_rot: u64,
    /// Stored content rots on a device.
    pub device_rot: u64,
    /// A faulty replica gives a version that exists to other content.
    pub reuse: u64,
    /// A device's disk fails at times, for a while.
    pub device_disk: u64,
    /// The server's does.
    pub server_disk: u64,
}

/// One kind of world.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// What happens.
    pub faults: Faults,
    /// What happens in a second act, after all has come to rest once: now the
    /// server loses nothing more, and no deletion may be forgotten.
    pub then: Option<Faults>,
    /// In what the server keeps its data.
    pub keeps: Keeps,
    /// Devices keep theirs in SQLite, not in memory.
    pub device_sqlite: bool,
    /// Servers that work on one store, at most.
    pub servers: u64,
    /// How far the clock of each of them is off, at most, milliseconds.
    pub apart_ms: u64,
    /// Spaces; each device is of one.
    pub spaces: u64,
    /// Openings of one store, at most: tabs, of which one syncs.
    pub tabs: u64,
    /// Devices hold ranges of keys, and change them.
    pub partial: bool,
    /// Writes to keys that are no longer held may be left over: what was
    /// deleted there was compacted.
    pub leaves_keys: bool,
    /// The most devices; there are at least 3.
    pub devices: u64,
    /// The longest time of faults, minutes; at least 1.
    pub minutes: u64,
    /// Users.
    pub habits: Habits,
    /// Healing must find nothing: no data is ever lost or damaged.
    pub nothing_to_heal: bool,
    /// Deletions may be forgotten: the server loses data *and* compacts.
    pub forgiving: bool,
}

const HABITS: Habits = Habits {
    hot_keys: 40,
    pause_ms: 20_000,
    imports: 4,
    documents: 150,
};

const BASE: World = World {
    name: "",
    about: "",
    faults: Faults {
        weather: 0,
        cut: 0,
        half_open: 0,
        crash: 0,
        away: 0,
        lose_store: 0,
        clock: 0,
        clock_ms: 0,
        server_clock: 0,
        restart: 0,
        restart_one: 0,
        wipe: 0,
        restore: 0,
        compact: 0,
        server_rot: 0,
        device_rot: 0,
        reuse: 0,
        device_disk: 0,
        server_disk: 0,
    },
    then: None,
    keeps: Keeps::Memory,
    device_sqlite: false,
    servers: 1,
    apart_ms: 0,
    spaces: 1,
    tabs: 1,
    partial: false,
    leaves_keys: false,
    devices: 6,
    minutes: 10,
    habits: HABITS,
    nothing_to_heal: false,
    forgiving: false,
};

const FLAKY: Faults = Faults {
    weather: 10,
    cut: 6,
    crash: 6,
    away: 3,
    restart: 2,
    device_disk: 2,
    server_disk: 2,
    ..BASE.faults
};

/// All worlds.
pub const WORLDS: &[World] = &[
    World {
        name: "calm",
        about: "nothing fails; devices only write the same keys at the same time",
        devices: 8,
        minutes: 3,
        nothing_to_heal: true,
        ..BASE
    },
    World {
        name: "flaky",
        about: "loss, repetition, delays up to 60 s, resets, cuts, crashes, restarts, small clock errors",
        faults: Faults {
            clock: 2,
            clock_ms: 120_000,
            ..FLAKY
        },
        devices: 12,
        nothing_to_heal: true,
        ..BASE
    },
    World {
        name: "flaky-sqlite",
        about: "as flaky, with the server's data in SQLite, on a disk that fails, and tears at a crash what was not synced",
        faults: FLAKY,
        keeps: Keeps::FaultyDisk,
        minutes: 3,
        nothing_to_heal: true,
        ..BASE
    },
    World {
        name: "lost-sqlite",
        about: "a server over SQLite is wiped, or goes back to a backup file",
        faults: Faults {
            wipe: 3,
            restore: 6,
            away: 6,
            ..FLAKY
        },
        keeps: Keeps::File,
        minutes: 3,
        ..BASE
    },
    World {
        name: "shared-sqlite",
        about: "up to 3 servers work on one SQLite store, on such a disk, which is compacted",
        faults: Faults {
            compact: 10,
            lose_store: 1,
            ..FLAKY
        },
        keeps: Keeps::FaultyDisk,
        servers: 3,
        minutes: 3,
        ..BASE
    },
    World {
        name: "clocks",
        about: "clocks up to 30 days off, jumping both ways, fast and slow, on devices and on the server",
        faults: Faults {
            clock: 12,
            clock_ms: 30 * 24 * 3_600_000,
            server_clock: 3,
            ..FLAKY
        },
        ..BASE
    },
    World {
        name: "compaction",
        about: "tombstones are compacted while devices are away, pushing, reconciling",
        faults: Faults {
            compact: 12,
            away: 10,
            lose_store: 1,
            ..FLAKY
        },
        minutes: 20,
        ..BASE
    },
    World {
        name: "lost-server",
        about: "the server is wiped, or goes back to a backup; devices refill it",
        faults: Faults {
            wipe: 3,
            restore: 6,
            away: 6,
            ..FLAKY
        },
        ..BASE
    },
    World {
        name: "rot",
        about: "stored content is damaged on the server and on devices, never everywhere at once",
        faults: Faults {
            server_rot: 8,
            device_rot: 8,
            ..FLAKY
        },
        ..BASE
    },
    World {
        name: "half-open",
        about: "requests arrive, and no answer comes back",
        faults: Faults {
            half_open: 10,
            ..FLAKY
        },
        nothing_to_heal: true,
        ..BASE
    },
    World {
        name: "servers",
        about: "up to 3 servers work on one store; each call meets another",
        faults: FLAKY,
        servers: 3,
        nothing_to_heal: true,
        ..BASE
    },
    World {
        name: "spaces",
        about: "3 spaces on one server, compacted now and then",
        faults: Faults {
            compact: 6,
            lose_store: 1,
            ..FLAKY
        },
        spaces: 3,
        devices: 9,
        ..BASE
    },
    World {
        name: "tabs",
        about: "up to 4 openings share a store, and one of them syncs",
        faults: FLAKY,
        tabs: 4,
        devices: 10,
        nothing_to_heal: true,
        ..BASE
    },
    World {
        name: "partial",
        about: "devices hold ranges of keys, and open with others",
        faults: Faults {
            lose_store: 2,
            ..FLAKY
        },
        partial: true,
        ..BASE
    },
    World {
        name: "left-keys",
        about: "as partial, and tombstones are compacted",
        faults: Faults {
            compact: 5,
            ..FLAKY
        },
        partial: true,
        leaves_keys: true,
        ..BASE
    },
    World {
        name: "reuse",
        about: "a faulty replica gives versions that exist to other content",
        faults: Faults { reuse: 10, ..FLAKY },
        ..BASE
    },
    World {
        name: "two-acts",
        about: "the server is wiped or restored; then, after a rest, tombstones are compacted",
        faults: Faults {
            wipe: 4,
            restore: 8,
            away: 6,
            ..FLAKY
        },
        then: Some(Faults {
            compact: 10,
            away: 10,
            ..FLAKY
        }),
        minutes: 8,
        ..BASE
    },
    World {
        name: "everything",
        about: "most of it at once; deletions that nobody remembers may return",
        faults: Faults {
            compact: 6,
            wipe: 1,
            restore: 3,
            away: 8,
            half_open: 3,
            clock: 4,
            clock_ms: 24 * 3_600_000,
            server_rot: 3,
            device_rot: 3,
            reuse: 2,
            ..FLAKY
        },
        keeps: Keeps::File,
        servers: 3,
        spaces: 2,
        tabs: 3,
        partial: true,
        leaves_keys: true,
        devices: 12,
        forgiving: true,
        ..BASE
    },
];

/// Worlds that seeds do not take in turn: whoever names them gets them.
pub const BY_NAME: &[World] = &[
    World {
        name: "device-sqlite",
        about: "devices keep their records in SQLite, on a disk that tears at a crash what was not synced",
        faults: Faults {
            compact: 6,
            lose_store: 2,
            away: 8,
            ..FLAKY
        },
        device_sqlite: true,
        minutes: 5,
        ..BASE
    },
    World {
        name: "lost-device-sqlite",
        about: "such devices refill a server that is wiped, or goes back to a backup",
        faults: Faults {
            wipe: 3,
            restore: 6,
            away: 6,
            ..FLAKY
        },
        device_sqlite: true,
        minutes: 5,
        ..BASE
    },
    World {
        name: "crowd",
        about: "up to twelve replicas of one space, most of it at once, clocks of devices up to 30 days off",
        faults: Faults {
            compact: 6,
            wipe: 1,
            restore: 3,
            away: 8,
            half_open: 3,
            clock: 4,
            clock_ms: 30 * 24 * 3_600_000,
            server_rot: 3,
            device_rot: 3,
            reuse: 2,
            ..FLAKY
        },
        keeps: Keeps::File,
        servers: 3,
        partial: true,
        leaves_keys: true,
        devices: 12,
        forgiving: true,
        ..BASE
    },
    World {
        name: "servers-apart",
        about: "2 or 3 servers on one store, which is compacted; each has a clock of its own, up to 5 s off, and dies alone",
        faults: Faults {
            compact: 6,
            lose_store: 1,
            restart_one: 10,
            ..FLAKY
        },
        servers: 3,
        apart_ms: 5_000,
        ..BASE
    },
];

/// The world of that name.
pub fn find(name: &str) -> Option<&'static World> {
    WORLDS.iter().chain(BY_NAME).find(|w| w.name == name)
}
