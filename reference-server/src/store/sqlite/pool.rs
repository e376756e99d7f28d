//! Connections for reading, beside the one that writes. Knows no tables.

use super::error::failed;
use crate::store::{Result, StoreError};
use rusqlite::Connection;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So many connections stay open when nobody reads.
const IDLE: usize = 8;
/// A reader waits so long for a connection to come free.
const PATIENCE: Duration = Duration::from_secs(5);

/// Opened as needed, up to a limit.
pub struct Pool {
    path: PathBuf,
    limit: usize,
    state: Mutex<State>,
    freed: Condvar,
}

struct State {
    idle: Vec<Connection>,
    lent: usize,
}

impl Pool {
    /// A pool over the database at `path`, which must exist.
    pub fn new(path: PathBuf, limit: usize) -> Pool {
        Pool {
            path,
            limit: limit.max(1),
            state: Mutex::new(State {
                idle: Vec::new(),
                lent: 0,
            }),
            freed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // the state is consistent after each statement: a panic elsewhere
        // while it was held does not spoil it
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection with no transaction open.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when all stay in use for several seconds.
    pub fn take(&self) -> Result<Lent<'_>> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.lock();
        while state.lent >= self.limit {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(StoreError::Busy(format!(
                    "all {} readers are in use",
                    self.limit
                )));
            }
            state = self
                .freed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state.lent += 1;
        let idle = state.idle.pop();
        drop(state);
        let lent = |conn| Lent {
            pool: self,
            conn: Some(conn),
        };
        match idle {
            Some(conn) => Ok(lent(conn)),
            None => match self.open() {
                Ok(conn) => Ok(lent(conn)),
                Err(e) => {
                    self.give_back(None);
                    Err(e)
                }
            },
        }
    }

    fn open(&self) -> Result<Connection> {
        let conn = super::connect(&self.path)?;
        conn.pragma_update(None, "query_only", true)
            .map_err(failed)?;
        Ok(conn)
    }

    fn give_back(&self, conn: Option<Connection>) {
        let mut state = self.lock();
        state.lent -= 1;
        if let Some(conn) = conn
            && state.idle.len() < IDLE
        {
            state.idle.push(conn);
        }
        drop(state);
        self.freed.notify_one();
    }
}

/// A borrowed connection; goes back when dropped, its transaction ended.
pub struct Lent<'p> {
    pool: &'p Pool,
    conn: Option<Connection>,
}

impl Deref for Lent<'_> {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        match &self.conn {
            Some(conn) => conn,
            None => unreachable!("only drop takes the connection"),
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let conn = self.conn.take();
        // one that cannot even end its transaction is closed instead
        let sound = conn.filter(|c| c.is_autocommit() || c.execute_batch("ROLLBACK").is_ok());
        self.pool.give_back(sound);
    }
}
