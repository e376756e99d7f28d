//! What is on the disk, what is only in the cache before it, and what a crash
//! leaves of that. Knows no SQLite and no locks.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Names a file beyond its name, as an inode does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FileId(pub u64);

/// One change of the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A new, empty file under a new name.
    Create(String, FileId),
    /// Bytes at a place.
    Write(FileId, u64, Vec<u8>),
    /// Another length.
    Truncate(FileId, u64),
    /// Everything that was changed in the file is durable.
    Sync(FileId),
    /// A sync that failed: what it should have made durable never will be.
    SyncFailed(FileId),
    /// The name is gone; whoever has the file open goes on with it.
    Remove(String),
    /// The first name becomes the second.
    Rename(String, String),
    /// All names are durable.
    SyncFolder,
}

/// What of the changes that were not synced a crash leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// Nothing.
    Lost,
    /// All: the process died, the machine did not.
    Kept,
    /// Some, chosen by this seed: each write wholly, in part or not at all,
    /// names up to some change.
    Torn(u64),
}

/// The content of a disk at rest: files by name.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Image {
    /// Content by name.
    pub files: BTreeMap<String, Arc<Vec<u8>>>,
}

/// The part of a file that a failing disk writes at once.
const SECTOR: usize = 512;

#[derive(Clone, Debug)]
enum Edit {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

impl Edit {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Edit::Write(at, bytes) => {
                let at = *at as usize;
                let end = at + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[at..end].copy_from_slice(bytes);
            }
            Edit::Truncate(length) => content.resize(*length as usize, 0),
        }
    }

    /// Some of its sectors.
    fn tear(&self, dice: &mut Dice, content: &mut Vec<u8>) {
        match self {
            Edit::Truncate(_) => {
                if dice.roll(2) == 0 {
                    self.apply(content);
                }
            }
            Edit::Write(at, bytes) => match dice.roll(3) {
                0 => {}
                1 => self.apply(content),
                _ => {
                    let mut from = 0;
                    while from < bytes.len() {
                        let absolute = *at as usize + from;
                        let to = bytes.len().min(from + SECTOR - absolute % SECTOR);
                        if dice.roll(2) == 0 {
                            Edit::Write(absolute as u64, bytes[from..to].to_vec()).apply(content);
                        }
                        from = to;
                    }
                }
            },
        }
    }
}

#[derive(Clone, Debug, Default)]
struct File {
    /// As processes see it.
    cached: Vec<u8>,
    /// As it is on the disk.
    durable: Vec<u8>,
    /// What leads from the one to the other, unless a sync failed.
    pending: Vec<Edit>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Platter {
    files: BTreeMap<FileId, File>,
    names: BTreeMap<String, FileId>,
    /// The names after each change of names since the folder was synced,
    /// beginning with those that are durable.
    name_history: Vec<BTreeMap<String, FileId>>,
}

impl Platter {
    /// All of the image is durable.
    pub fn new(image: &Image) -> Platter {
        let mut platter = Platter::default();
        for (n, (name, content)) in image.files.iter().enumerate() {
            let id = FileId(n as u64);
            let file = File {
                cached: content.to_vec(),
                durable: content.to_vec(),
                pending: Vec::new(),
            };
            platter.files.insert(id, file);
            platter.names.insert(name.clone(), id);
        }
        platter.name_history.push(platter.names.clone());
        platter
    }

    /// An id that no file has had.
    pub fn next_id(&self) -> FileId {
        FileId(self.files.last_key_value().map_or(0, |(id, _)| id.0 + 1))
    }

    /// The file under a name.
    pub fn find(&self, name: &str) -> Option<FileId> {
        self.names.get(name).copied()
    }

    /// What processes read.
    pub fn content(&self, id: FileId) -> &[u8] {
        self.files.get(&id).map_or(&[], |f| &f.cached)
    }

    /// Does what the change says.
    pub fn apply(&mut self, change: &Change) {
        let edit = match change {
            Change::Create(name, id) => {
                self.files.insert(*id, File::default());
                self.rename(|names| {
                    names.insert(name.clone(), *id);
                });
                return;
            }
            Change::Remove(name) => {
                return self.rename(|names| {
                    names.remove(name);
                });
            }
            Change::Rename(from, to) => {
                return self.rename(|names| {
                    if let Some(id) = names.remove(from) {
                        names.insert(to.clone(), id);
                    }
                });
            }
            Change::SyncFolder => {
                self.name_history = vec![self.names.clone()];
                return;
            }
            Change::Sync(id) => {
                let file = self.files.entry(*id).or_default();
                for edit in std::mem::take(&mut file.pending) {
                    edit.apply(&mut file.durable);
                }
                return;
            }
            Change::SyncFailed(id) => {
                self.files.entry(*id).or_default().pending.clear();
                return;
            }
            Change::Write(id, at, bytes) => (id, Edit::Write(*at, bytes.clone())),
            Change::Truncate(id, length) => (id, Edit::Truncate(*length)),
        };
        let (id, edit) = edit;
        let file = self.files.entry(*id).or_default();
        edit.apply(&mut file.cached);
        file.pending.push(edit);
    }

    fn rename(&mut self, how: impl FnOnce(&mut BTreeMap<String, FileId>)) {
        how(&mut self.names);
        self.name_history.push(self.names.clone());
    }

    /// What is there after a crash.
    pub fn crash(&self, how: Crash) -> Image {
        let mut dice = Dice(match how {
            Crash::Torn(seed) => seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            _ => 1,
        });
        let names = match how {
            Crash::Kept => &self.names,
            Crash::Lost => self.name_history.first().unwrap_or(&self.names),
            Crash::Torn(_) => {
                let at = dice.roll(self.name_history.len());
                self.name_history.get(at).unwrap_or(&self.names)
            }
        };
        let content = |dice: &mut Dice, id: &FileId| {
            let Some(file) = self.files.get(id) else {
                return Vec::new();
            };
            match how {
                Crash::Kept => file.cached.clone(),
                Crash::Lost => file.durable.clone(),
                Crash::Torn(_) => {
                    let mut content = file.durable.clone();
                    for edit in &file.pending {
                        edit.tear(dice, &mut content);
                    }
                    content
                }
            }
        };
        let files = names
            .iter()
            .map(|(name, id)| (name.clone(), Arc::new(content(&mut dice, id))))
            .collect();
        Image { files }
    }
}

/// A small generator of pseudo-random numbers (splitmix64): the same on every
/// machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides.max(1) as u64) as usize
    }
}
