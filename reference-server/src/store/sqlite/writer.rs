//! The one thread that writes: callers that come while a commit is under way
//! share the next one, and its wait for the disk. Knows no records.
//!
//! Each caller's work runs in a savepoint, so that its failure undoes only
//! itself. Nobody hears of success before the shared commit has succeeded.

use super::error::failed;
use super::read::Session;
use crate::store::{Result, StoreError, Work};
use gosync_proto::{SpaceId, mutant};
use rusqlite::Connection;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A group takes no more callers after so many,
const GROUP_CALLERS: usize = 512;
/// or after so long: the first of them is waiting.
const GROUP_TIME: Duration = Duration::from_millis(25);

/// Work outside any one space.
pub type GlobalWork = Box<dyn FnOnce(&Connection) -> Result<()> + Send>;

enum Task {
    Space(SpaceId, Work),
    Global(GlobalWork),
}

struct Job {
    task: Task,
    done: SyncSender<Result<()>>,
}

/// Figures since the store was opened.
#[derive(Debug, Default)]
pub struct WriterStats {
    /// Commits of the database.
    pub commits: AtomicU64,
    /// Callers that these served.
    pub callers: AtomicU64,
}

/// The handle of the thread. Dropping it ends the thread after what was begun.
pub struct Writer {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    poison: Arc<Mutex<Option<String>>>,
    stats: Arc<WriterStats>,
}

impl Writer {
    /// Takes the connection that writes.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when no thread can be started.
    pub fn start(conn: Connection) -> Result<Writer> {
        let (jobs, queue) = channel();
        let poison = Arc::new(Mutex::new(None));
        let stats = Arc::new(WriterStats::default());
        let state = ThreadState {
            conn,
            poison: poison.clone(),
            stats: stats.clone(),
        };
        let inherit = gosync_proto::mutant::inherited();
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                inherit();
                state.run(&queue);
            })
            .map_err(|e| StoreError::Failed(format!("the writer's thread did not start: {e}")))?;
        Ok(Writer {
            jobs: Some(jobs),
            thread: Some(thread),
            poison,
            stats,
        })
    }

    /// Runs work in one space; see [`crate::store::Store::write_boxed`].
    pub fn space(&self, space: &SpaceId, work: Work) -> Result<()> {
        self.submit(Task::Space(space.clone(), work))
    }

    /// Runs work on the whole database.
    pub fn global(&self, work: GlobalWork) -> Result<()> {
        self.submit(Task::Global(work))
    }

    /// Why nothing can be written any more, if so.
    pub fn poisoned(&self) -> Option<String> {
        lock(&self.poison).clone()
    }

    /// Figures since the start.
    pub fn stats(&self) -> &WriterStats {
        &self.stats
    }

    fn submit(&self, task: Task) -> Result<()> {
        let stopped = || StoreError::Failed("the writer has stopped".into());
        let (done, outcome) = sync_channel(1);
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        jobs.send(Job { task, done }).map_err(|_| stopped())?;
        outcome.recv().map_err(|_| stopped())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // the thread catches panics of the work; nothing is left to report
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct ThreadState {
    conn: Connection,
    poison: Arc<Mutex<Option<String>>>,
    stats: Arc<WriterStats>,
}

impl ThreadState {
    fn run(self, queue: &Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            self.run_group(first, queue);
        }
    }

    fn run_group(&self, first: Job, queue: &Receiver<Job>) {
        let poisoned = lock(&self.poison).clone();
        if let Some(why) = poisoned {
            answer(first.done, Err(StoreError::Poisoned(why)));
            return;
        }
        if self.conn.is_autocommit()
            && let Err(e) = self.conn.execute_batch("BEGIN IMMEDIATE")
        {
            answer(first.done, Err(failed(e)));
            return;
        }
        let began = Instant::now();
        let mut waiting: Vec<(SyncSender<Result<()>>, Result<()>)> = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            let outcome = self.run_one(job.task);
            waiting.push((job.done, outcome));
            if self.conn.is_autocommit() {
                // SQLite gave the whole transaction up (a full disk, an I/O
                // error): what others did in it is gone too
                break;
            }
            let room = waiting.len() < GROUP_CALLERS && began.elapsed() < GROUP_TIME;
            next = room.then(|| queue.try_recv().ok()).flatten();
        }
        // this group is committed with the next
        let committed = if mutant!(AckBeforeDurable) {
            Ok(())
        } else if self.conn.is_autocommit() {
            let cause = waiting
                .last()
                .and_then(|(_, outcome)| outcome.as_ref().err());
            Err(cause.map_or(
                StoreError::Failed("the shared transaction was rolled back".into()),
                again,
            ))
        } else {
            self.commit()
        };
        self.stats.commits.fetch_add(1, Ordering::Relaxed);
        self.stats
            .callers
            .fetch_add(waiting.len() as u64, Ordering::Relaxed);
        for (done, outcome) in waiting {
            let outcome = match (outcome, &committed) {
                (Ok(()), Err(e)) => Err(again(e)),
                (outcome, _) => outcome,
            };
            answer(done, outcome);
        }
    }

    fn run_one(&self, task: Task) -> Result<()> {
        self.conn.execute_batch("SAVEPOINT job").map_err(failed)?;
        let outcome = catch_unwind(AssertUnwindSafe(|| match task {
            Task::Space(space, work) => {
                let mut session = Session::open(&self.conn, &space)?;
                work(&mut session)
            }
            Task::Global(work) => work(&self.conn),
        }))
        .unwrap_or(Err(StoreError::Misuse("the work of a write panicked")));
        let end = match &outcome {
            Ok(()) => "RELEASE job",
            Err(_) if self.conn.is_autocommit() => return outcome,
            Err(_) => "ROLLBACK TO job; RELEASE job",
        };
        self.conn.execute_batch(end).map_err(failed)?;
        outcome
    }

    fn commit(&self) -> Result<()> {
        let Err(e) = self.conn.execute_batch("COMMIT") else {
            return Ok(());
        };
        let error = failed(e);
        let rolled_back = self.conn.is_autocommit() || self.conn.execute_batch("ROLLBACK").is_ok();
        // A full disk or a lock leaves the log as it was. After any other
        // failure (of fsync, of a write) nobody can tell what is on the disk.
        let harmless = matches!(error, StoreError::Full(_) | StoreError::Busy(_));
        if !(harmless && rolled_back) {
            tracing::error!(%error, "a commit failed; the store accepts no more writes");
            *lock(&self.poison) = Some(error.to_string());
            return Err(StoreError::Poisoned(error.to_string()));
        }
        Err(error)
    }
}

/// The caller may have gone away; then nobody is told.
fn answer(done: SyncSender<Result<()>>, outcome: Result<()>) {
    let _ = done.send(outcome);
}

/// The shared commit's error, for one more of those who shared it.
fn again(e: &StoreError) -> StoreError {
    match e {
        StoreError::Full(s) => StoreError::Full(s.clone()),
        StoreError::Busy(s) => StoreError::Busy(s.clone()),
        StoreError::Corrupt(s) => StoreError::Corrupt(s.clone()),
        StoreError::Poisoned(s) => StoreError::Poisoned(s.clone()),
        other => StoreError::Failed(other.to_string()),
    }
}
