//! Virtual time and the tasks that live in it: one thread, and the order of
//! everything decided by one seed. Time stands still while any task can run,
//! then jumps to the next timer. Knows nothing of what the tasks do.

use crate::chance::Chance;
use gosync_client::platform::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Names what tasks belong to: what is killed dies as a whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Process(pub u64);

/// So many steps without time going on are a loop that never ends.
const STEPS_OF_ONE_INSTANT: u64 = 200_000;

/// Tasks that go round and round without time going on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("tasks kept each other running at {0} ms without time going on")]
pub struct Spinning(pub u64);

type Slot = (Process, Option<BoxFuture<'static, ()>>);

#[derive(Default)]
struct State {
    now_ms: u64,
    next_id: u64,
    tasks: BTreeMap<u64, Slot>,
    /// By id: in which order tasks were woken must decide nothing, since
    /// libraries wake in orders of their own, some of them random.
    ready: BTreeSet<u64>,
    timers: BTreeMap<(u64, u64), Waker>,
}

/// A handle of one virtual world's time and tasks.
#[derive(Clone)]
pub struct Executor {
    state: Arc<Mutex<State>>,
    chance: Chance,
}

struct Wakeup {
    task: u64,
    state: Arc<Mutex<State>>,
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        let mut state = lock(&self.state);
        if state.tasks.contains_key(&self.task) {
            state.ready.insert(self.task);
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // a panicking task ends the run; what it leaves is only looked at
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Executor {
    /// An empty world at time 0.
    pub fn new(chance: Chance) -> Executor {
        Executor {
            state: Arc::default(),
            chance,
        }
    }

    /// Virtual milliseconds since the beginning.
    pub fn now_ms(&self) -> u64 {
        lock(&self.state).now_ms
    }

    /// A name that no other process has.
    pub fn new_process(&self) -> Process {
        let mut state = lock(&self.state);
        state.next_id += 1;
        Process(state.next_id)
    }

    /// Runs a task until it ends, or its process is killed.
    pub fn spawn(&self, process: Process, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_boxed(process, Box::pin(task));
    }

    /// As [`Executor::spawn`].
    pub fn spawn_boxed(&self, process: Process, task: BoxFuture<'static, ()>) {
        let mut state = lock(&self.state);
        state.next_id += 1;
        let id = state.next_id;
        state.tasks.insert(id, (process, Some(task)));
        state.ready.insert(id);
    }

    /// Ends all tasks of a process where they stand.
    pub fn kill(&self, process: Process) {
        let dead: Vec<Slot> = {
            let mut state = lock(&self.state);
            let of = |(id, (p, _)): (&u64, &Slot)| (*p == process).then_some(*id);
            let ids: Vec<u64> = state.tasks.iter().filter_map(of).collect();
            ids.iter().for_each(|id| {
                state.ready.remove(id);
            });
            ids.iter().filter_map(|id| state.tasks.remove(id)).collect()
        };
        // dropping a task may wake others
        drop(dead);
    }

    /// Ends all tasks.
    pub fn end(&self) {
        let (tasks, timers) = {
            let mut state = lock(&self.state);
            state.ready.clear();
            let timers = std::mem::take(&mut state.timers);
            (std::mem::take(&mut state.tasks), timers)
        };
        drop(tasks);
        drop(timers);
    }

    /// Resolves after so many virtual milliseconds.
    pub fn sleep(&self, ms: u64) -> Sleep {
        Sleep {
            executor: self.clone(),
            due_ms: self.now_ms().saturating_add(ms),
            timer: None,
            polled: false,
        }
    }

    /// Runs everything until the clock reads `until_ms`.
    ///
    /// # Errors
    /// [`Spinning`].
    pub fn run_until(&self, until_ms: u64) -> Result<(), Spinning> {
        let mut steps = 0;
        loop {
            let next = {
                let mut state = lock(&self.state);
                let at = match state.ready.len() {
                    0 => 0,
                    n => (self.chance.bits() % n as u64) as usize,
                };
                let chosen = state.ready.iter().nth(at).copied();
                chosen.inspect(|id| {
                    state.ready.remove(id);
                })
            };
            if let Some(id) = next {
                steps += 1;
                if steps > STEPS_OF_ONE_INSTANT {
                    return Err(Spinning(self.now_ms()));
                }
                self.step(id);
                continue;
            }
            let mut state = lock(&self.state);
            let due = state.timers.first_key_value().map(|((at, _), _)| *at);
            match due.filter(|at| *at <= until_ms) {
                Some(at) => {
                    steps = 0;
                    state.now_ms = state.now_ms.max(at);
                    let waker = state.timers.pop_first().map(|(_, waker)| waker);
                    drop(state);
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                }
                None => {
                    state.now_ms = state.now_ms.max(until_ms);
                    return Ok(());
                }
            }
        }
    }

    fn step(&self, id: u64) {
        let task = lock(&self.state)
            .tasks
            .get_mut(&id)
            .and_then(|(_, task)| task.take());
        let Some(mut task) = task else { return };
        let waker = Waker::from(Arc::new(Wakeup {
            task: id,
            state: Arc::clone(&self.state),
        }));
        let done = task
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready();
        let mut state = lock(&self.state);
        let rest = match state.tasks.get_mut(&id) {
            Some((_, slot)) if !done => slot.replace(task),
            // over, or its process was killed meanwhile
            _ => {
                state.tasks.remove(&id);
                Some(task)
            }
        };
        drop(state);
        drop(rest);
    }
}

/// See [`Executor::sleep`].
pub struct Sleep {
    executor: Executor,
    due_ms: u64,
    timer: Option<(u64, u64)>,
    polled: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let state = Arc::clone(&self.executor.state);
        if !std::mem::replace(&mut self.polled, true) && self.due_ms <= self.executor.now_ms() {
            // others get their turn even between sleeps of no length
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut state = lock(&state);
        if state.now_ms >= self.due_ms {
            if let Some(timer) = self.timer.take() {
                state.timers.remove(&timer);
            }
            return Poll::Ready(());
        }
        let timer = match self.timer {
            Some(timer) => timer,
            None => {
                state.next_id += 1;
                (self.due_ms, state.next_id)
            }
        };
        state.timers.insert(timer, cx.waker().clone());
        self.timer = Some(timer);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            // the waker is dropped outside the lock
            let _waker = lock(&self.executor.state).timers.remove(&timer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn time_jumps_to_the_next_timer_and_stops_where_it_is_told() {
        let executor = Executor::new(Chance::new(1));
        let process = executor.new_process();
        let woke = Arc::new(AtomicU64::new(0));
        let (clock, seen) = (executor.clone(), Arc::clone(&woke));
        executor.spawn(process, async move {
            clock.sleep(3_600_000).await;
            seen.store(clock.now_ms(), Ordering::Relaxed);
        });
        executor.run_until(3_599_999).unwrap();
        assert_eq!(woke.load(Ordering::Relaxed), 0);
        executor.run_until(4_000_000).unwrap();
        assert_eq!(woke.load(Ordering::Relaxed), 3_600_000);
        assert_eq!(executor.now_ms(), 4_000_000);
    }

    #[test]
    fn a_killed_process_does_nothing_more() {
        let executor = Executor::new(Chance::new(1));
        let (dies, lives) = (executor.new_process(), executor.new_process());
        let woke = Arc::new(AtomicU64::new(0));
        for process in [dies, lives] {
            let (clock, seen) = (executor.clone(), Arc::clone(&woke));
            executor.spawn(process, async move {
                clock.sleep(10).await;
                seen.fetch_add(1, Ordering::Relaxed);
            });
        }
        executor.run_until(5).unwrap();
        executor.kill(dies);
        executor.run_until(20).unwrap();
        assert_eq!(woke.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_loop_without_time_is_reported() {
        let executor = Executor::new(Chance::new(1));
        let process = executor.new_process();
        let clock = executor.clone();
        executor.spawn(process, async move {
            loop {
                clock.sleep(0).await;
            }
        });
        assert_eq!(executor.run_until(1), Err(Spinning(0)));
    }
}
