//! A disk in memory that crashes, fills up and fails, as an SQLite VFS: for
//! tests of what a store promises. Knows files, names and SQLite's calls; must
//! not know what is stored.
//!
//! - A [`Disk`] is live: SQLite works on it under [`VFS`], at paths that
//!   [`Disk::path`] gives. It records every change, and can be told to fail.
//! - A [`Crash`] says what of the changes that were not synced is there after
//!   a power cut. [`Recording::crashes`] gives the content of the disk after a
//!   crash at each single change.
//! - An [`Image`] is what a disk holds at rest, and what a new one begins with.
//!
//! The rules are those of a strict file system: a write or a new length is
//! durable once its file was synced, a name once its folder was; what was not
//! synced may be there, wholly or in parts, in any order. Writes tear at
//! sectors of 512 bytes and spare the bytes beside them. After a sync that
//! failed, what it should have written is never written by a later one, as on
//! Linux.

mod disk;
mod locks;
mod platter;
#[cfg(test)]
mod tests;
#[allow(unsafe_code)]
mod vfs;

pub use disk::{Disk, Fault, Recording, VFS};
pub use platter::{Change, Crash, Image};
pub use vfs::register_by_default as use_by_default;
