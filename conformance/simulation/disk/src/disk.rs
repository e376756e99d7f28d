//! A live disk: what SQLite's calls do to it, which of them fail, and what is
//! recorded. Knows no C.

use crate::locks::{FileLocks, HandleId, IndexLocks, Level};
use crate::platter::{Change, Crash, FileId, Image, Platter};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

/// The name under which SQLite finds these disks.
pub const VFS: &str = "gosync-faulty-disk";

/// What goes wrong, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Fault {
    /// One operation of any kind fails, a write after half of its bytes; those
    /// after it succeed.
    Io,
    /// There is no room left from one operation on, until [`Disk::mend`].
    /// Counts only what takes room.
    Full,
    /// One sync fails. Counts only syncs.
    Sync,
}

/// What kind of operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Takes no room.
    Other,
    /// Takes room.
    Grows,
    Sync,
}

/// Why an operation did not succeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    Io,
    Full,
    NotFound,
    Exists,
}

/// The index of a log, shared by those who have the database open. As memory
/// mapped by several processes: whoever has a pointer reads and writes it.
pub(crate) type Region = Arc<[AtomicU32]>;

#[derive(Default)]
struct Index {
    regions: Vec<Region>,
    locks: IndexLocks,
    users: u32,
}

struct State {
    platter: Platter,
    changes: Vec<Change>,
    locks: BTreeMap<FileId, FileLocks>,
    indexes: BTreeMap<FileId, Index>,
    open: u64,
    next_file: FileId,
    /// What is to fail, and how many operations succeed before.
    fault: Option<(Fault, u64)>,
    /// How often it has failed.
    failures: u64,
    passed: HashMap<Fault, u64>,
}

struct Shared {
    number: u64,
    begun: Image,
    state: Mutex<State>,
    closed: Condvar,
}

/// See the module. Clones are the same disk; it is gone with the last of them
/// and the last open file.
#[derive(Clone)]
pub struct Disk(Arc<Shared>);

static DISKS: LazyLock<Mutex<HashMap<u64, Weak<Shared>>>> = LazyLock::new(Mutex::default);
static NUMBERS: AtomicU64 = AtomicU64::new(1);
static HANDLES: AtomicU64 = AtomicU64::new(1);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk {
    /// A disk with this on it, all of it durable.
    pub fn new(image: Image) -> Disk {
        crate::vfs::register();
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let platter = Platter::new(&image);
        let shared = Arc::new(Shared {
            number,
            begun: image,
            state: Mutex::new(State {
                next_file: platter.next_id(),
                platter,
                changes: Vec::new(),
                locks: BTreeMap::new(),
                indexes: BTreeMap::new(),
                open: 0,
                fault: None,
                failures: 0,
                passed: HashMap::new(),
            }),
            closed: Condvar::new(),
        });
        lock(&DISKS).insert(number, Arc::downgrade(&shared));
        Disk(shared)
    }

    /// Where a file of this name is, for SQLite with [`VFS`].
    pub fn path(&self, name: &str) -> PathBuf {
        Path::new("/").join(self.prefix()).join(name)
    }

    /// The same as a URI that names [`VFS`]: for a program that uses other disks
    /// beside.
    pub fn uri(&self, name: &str) -> PathBuf {
        format!("file:/{}/{name}?vfs={VFS}", self.prefix()).into()
    }

    fn prefix(&self) -> String {
        format!("{VFS}-{}", self.0.number)
    }

    /// The disk and the name in it that a path means.
    pub(crate) fn locate(path: &str) -> Option<(Disk, String)> {
        let (disk, name) = path.strip_prefix('/')?.split_once('/')?;
        let number = disk.strip_prefix(VFS)?.strip_prefix('-')?.parse().ok()?;
        let shared = lock(&DISKS).get(&number)?.upgrade()?;
        Some((Disk(shared), name.to_owned()))
    }

    /// A path of this disk as the name in it.
    fn name(&self, path: &Path) -> Option<String> {
        let inside = path.strip_prefix("/").ok()?.strip_prefix(self.prefix());
        inside.ok()?.to_str().map(str::to_owned)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    /// Lets `after` operations of the fault's kind succeed from now on, then
    /// fails.
    pub fn fail(&self, fault: Fault, after: u64) {
        let mut state = self.state();
        state.fault = Some((fault, after));
        state.failures = 0;
    }

    /// Nothing fails any more.
    pub fn mend(&self) {
        self.state().fault = None;
    }

    /// Looks at the disk as if it were sound: nothing fails meanwhile.
    pub fn without_faults<T>(&self, look: impl FnOnce() -> T) -> T {
        let fault = self.state().fault.take();
        let seen = look();
        self.state().fault = fault;
        seen
    }

    /// How many operations failed since [`Disk::fail`].
    pub fn failures(&self) -> u64 {
        self.state().failures
    }

    /// How many operations of the fault's kind there were so far.
    pub fn operations(&self, fault: Fault) -> u64 {
        self.state().passed.get(&fault).copied().unwrap_or(0)
    }

    /// How many changes there were so far.
    pub fn changes(&self) -> usize {
        self.state().changes.len()
    }

    /// What a crash at this moment leaves.
    pub fn crash(&self, how: Crash) -> Image {
        self.state().platter.crash(how)
    }

    /// Waits until SQLite has closed all files: stores may close them on
    /// threads of their own.
    pub fn wait_until_closed(&self) {
        let mut state = self.state();
        while state.open > 0 {
            state = (self.0.closed.wait(state)).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Everything that was changed so far.
    pub fn recording(&self) -> Recording {
        Recording {
            begun: self.0.begun.clone(),
            changes: self.state().changes.clone(),
        }
    }
}

/// What happened to a disk.
#[derive(Clone, Debug)]
pub struct Recording {
    begun: Image,
    changes: Vec<Change>,
}

impl Recording {
    /// How many changes there are. There is one crash more: the first comes
    /// before them all.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing was changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes, in order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// For each number of changes that were made before the crash: what it
    /// left, in each of the ways asked for.
    pub fn crashes(&self, ways: &[Crash], mut visit: impl FnMut(usize, Crash, Image)) {
        let mut platter = Platter::new(&self.begun);
        for at in 0..=self.changes.len() {
            for way in ways {
                // a seed chooses anew at each change
                let seeded = match *way {
                    Crash::Torn(seed) => Crash::Torn(seed ^ ((at as u64) << 20)),
                    way => way,
                };
                visit(at, *way, platter.crash(seeded));
            }
            if let Some(change) = self.changes.get(at) {
                platter.apply(change);
            }
        }
    }
}

impl State {
    /// Whether an operation may succeed.
    fn attempt(&mut self, kind: Kind) -> Result<(), Failure> {
        let counted: &[Fault] = match kind {
            Kind::Other => &[Fault::Io],
            Kind::Grows => &[Fault::Io, Fault::Full],
            Kind::Sync => &[Fault::Io, Fault::Sync],
        };
        for fault in counted {
            *self.passed.entry(*fault).or_default() += 1;
        }
        let Some((fault, left)) = &mut self.fault else {
            return Ok(());
        };
        let fault = *fault;
        if !counted.contains(&fault) {
            return Ok(());
        }
        if *left > 0 {
            *left -= 1;
            return Ok(());
        }
        self.failures += 1;
        if fault == Fault::Full {
            return Err(Failure::Full);
        }
        self.fault = None;
        Err(Failure::Io)
    }

    fn change(&mut self, change: Change) {
        self.platter.apply(&change);
        self.changes.push(change);
    }
}

/// Files beside SQLite's own work on them, for a store that copies whole
/// files. All of them count as operations and can fail.
impl Disk {
    /// Whether there is such a file.
    pub fn exists(&self, path: &Path) -> bool {
        let name = self.name(path);
        name.is_some_and(|n| self.state().platter.find(&n).is_some())
    }

    /// Makes a file's content durable.
    ///
    /// # Errors
    /// There is none, or the disk fails.
    pub fn sync(&self, path: &Path) -> std::io::Result<()> {
        let id = self.find(path)?;
        self.sync_file(id, false).map_err(io_error)
    }

    /// Gives a file another name, in place of whoever has that.
    ///
    /// # Errors
    /// There is none, or the disk fails.
    pub fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.find(from)?;
        let (Some(from), Some(to)) = (self.name(from), self.name(to)) else {
            return Err(std::io::ErrorKind::NotFound.into());
        };
        let mut state = self.state();
        state.attempt(Kind::Other).map_err(io_error)?;
        state.change(Change::Rename(from, to));
        Ok(())
    }

    /// Makes all names durable.
    ///
    /// # Errors
    /// The disk fails.
    pub fn sync_folder(&self) -> std::io::Result<()> {
        let mut state = self.state();
        state.attempt(Kind::Sync).map_err(io_error)?;
        state.change(Change::SyncFolder);
        Ok(())
    }

    /// Removes a file.
    ///
    /// # Errors
    /// There is none, or the disk fails.
    pub fn remove(&self, path: &Path) -> std::io::Result<()> {
        self.find(path)?;
        let name = self.name(path).unwrap_or_default();
        self.remove_file(&name, false).map_err(io_error)
    }

    fn find(&self, path: &Path) -> std::io::Result<FileId> {
        let name = self.name(path);
        let found = name.and_then(|n| self.state().platter.find(&n));
        found.ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }
}

fn io_error(failure: Failure) -> std::io::Error {
    match failure {
        Failure::Full => std::io::ErrorKind::StorageFull.into(),
        Failure::NotFound => std::io::ErrorKind::NotFound.into(),
        Failure::Exists => std::io::ErrorKind::AlreadyExists.into(),
        Failure::Io => std::io::Error::other("the disk failed"),
    }
}

/// How SQLite wants a file opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub create: bool,
    pub exclusive: bool,
    pub remove_on_close: bool,
    /// Its first sync makes its name durable too.
    pub sync_name: bool,
}

/// A file that SQLite has open.
pub(crate) struct OpenFile {
    disk: Disk,
    id: FileId,
    handle: HandleId,
    remove_on_close: Option<String>,
    sync_name: bool,
    uses_index: bool,
}

impl Disk {
    pub(crate) fn open(&self, name: &str, how: Opening) -> Result<OpenFile, Failure> {
        let mut state = self.state();
        state.attempt(Kind::Other)?;
        let (id, created) = match state.platter.find(name) {
            Some(_) if how.create && how.exclusive => return Err(Failure::Exists),
            Some(id) => (id, false),
            None if how.create => {
                state.attempt(Kind::Grows)?;
                let id = state.next_file;
                state.next_file.0 += 1;
                state.change(Change::Create(name.to_owned(), id));
                (id, true)
            }
            None => return Err(Failure::NotFound),
        };
        state.open += 1;
        Ok(OpenFile {
            disk: self.clone(),
            id,
            handle: HandleId(HANDLES.fetch_add(1, Ordering::Relaxed)),
            remove_on_close: how.remove_on_close.then(|| name.to_owned()),
            sync_name: created && how.sync_name,
            uses_index: false,
        })
    }

    pub(crate) fn has(&self, name: &str) -> Result<bool, Failure> {
        let mut state = self.state();
        state.attempt(Kind::Other)?;
        Ok(state.platter.find(name).is_some())
    }

    pub(crate) fn remove_file(&self, name: &str, sync: bool) -> Result<(), Failure> {
        let mut state = self.state();
        state.attempt(Kind::Other)?;
        if state.platter.find(name).is_none() {
            return Err(Failure::NotFound);
        }
        state.change(Change::Remove(name.to_owned()));
        if sync {
            state.attempt(Kind::Sync)?;
            state.change(Change::SyncFolder);
        }
        Ok(())
    }

    fn sync_file(&self, id: FileId, name_too: bool) -> Result<(), Failure> {
        let mut state = self.state();
        if let Err(failure) = state.attempt(Kind::Sync) {
            state.change(Change::SyncFailed(id));
            return Err(failure);
        }
        state.change(Change::Sync(id));
        if name_too {
            state.attempt(Kind::Sync)?;
            state.change(Change::SyncFolder);
        }
        Ok(())
    }
}

impl OpenFile {
    /// How many bytes there were.
    pub(crate) fn read(&self, at: u64, into: &mut [u8]) -> Result<usize, Failure> {
        let mut state = self.disk.state();
        state.attempt(Kind::Other)?;
        let content = state.platter.content(self.id);
        let from = content.len().min(at as usize);
        let to = content.len().min(from + into.len());
        into[..to - from].copy_from_slice(&content[from..to]);
        Ok(to - from)
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Failure> {
        let mut state = self.disk.state();
        let attempt = state.attempt(Kind::Grows);
        let written = match attempt {
            Ok(()) => bytes,
            Err(_) => &bytes[..bytes.len() / 2],
        };
        state.change(Change::Write(self.id, at, written.to_vec()));
        attempt
    }

    pub(crate) fn truncate(&self, length: u64) -> Result<(), Failure> {
        let mut state = self.disk.state();
        state.attempt(Kind::Other)?;
        state.change(Change::Truncate(self.id, length));
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> Result<(), Failure> {
        self.disk.sync_file(self.id, self.sync_name)?;
        self.sync_name = false;
        Ok(())
    }

    pub(crate) fn size(&self) -> Result<u64, Failure> {
        let mut state = self.disk.state();
        state.attempt(Kind::Other)?;
        Ok(state.platter.content(self.id).len() as u64)
    }

    /// `false`: busy.
    pub(crate) fn lock(&self, level: Level) -> bool {
        let mut state = self.disk.state();
        let locks = state.locks.entry(self.id).or_default();
        locks.raise(self.handle, level)
    }

    pub(crate) fn unlock(&self, level: Level) {
        let mut state = self.disk.state();
        let locks = state.locks.entry(self.id).or_default();
        locks.lower(self.handle, level);
    }

    pub(crate) fn reserved(&self) -> bool {
        let state = self.disk.state();
        state.locks.get(&self.id).is_some_and(FileLocks::reserved)
    }

    /// A part of the log's index; `None` when there is none and none is to be
    /// made.
    pub(crate) fn index(
        &mut self,
        region: usize,
        bytes: usize,
        make: bool,
    ) -> Result<Option<Region>, Failure> {
        let mut state = self.disk.state();
        state.attempt(Kind::Other)?;
        let index = state.indexes.entry(self.id).or_default();
        if !self.uses_index {
            self.uses_index = true;
            index.users += 1;
        }
        while make && index.regions.len() <= region {
            let words = std::iter::repeat_with(|| AtomicU32::new(0)).take(bytes.div_ceil(4));
            index.regions.push(words.collect());
        }
        Ok(index.regions.get(region).cloned())
    }

    /// `false`: busy.
    pub(crate) fn index_lock(&self, slots: std::ops::Range<u32>, exclusive: bool) -> bool {
        let mut state = self.disk.state();
        let index = state.indexes.entry(self.id).or_default();
        index.locks.lock(self.handle, slots, exclusive)
    }

    pub(crate) fn index_unlock(&self, slots: std::ops::Range<u32>, exclusive: bool) {
        let mut state = self.disk.state();
        let index = state.indexes.entry(self.id).or_default();
        index.locks.unlock(self.handle, slots, exclusive);
    }

    pub(crate) fn index_leave(&mut self) {
        if !std::mem::take(&mut self.uses_index) {
            return;
        }
        let mut state = self.disk.state();
        let index = state.indexes.entry(self.id).or_default();
        index.locks.forget(self.handle);
        index.users -= 1;
        if index.users == 0 {
            // as a computer that is switched off, or the last process that ends
            state.indexes.remove(&self.id);
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.index_leave();
        self.unlock(Level::None);
        let mut state = self.disk.state();
        if let Some(name) = self.remove_on_close.take() {
            state.change(Change::Remove(name));
        }
        state.open -= 1;
        drop(state);
        self.disk.0.closed.notify_all();
    }
}
