//! The environment of a browser, a worker or Node: timers, tasks, clocks.

use crate::platform::{BoxFuture, Moment, Runtime, random_u64, wall_ms};
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use wasm_bindgen::JsValue;
use wasm_bindgen::closure::Closure;
use wasm_bindgen::prelude::wasm_bindgen;

#[wasm_bindgen]
extern "C" {
    // Global in windows, workers and Node alike. Node's ids are objects.
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &Closure<dyn FnMut()>, ms: f64) -> JsValue;
    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(id: &JsValue);
}

/// Timers delay at most this long; longer waits fire early, and whoever waits
/// looks at the clock anyway.
const LONGEST_MS: u64 = 1 << 30;

/// The runtime of the JavaScript world.
#[derive(Clone, Copy, Debug)]
pub struct WebRuntime {
    origin: web_time::Instant,
}

impl WebRuntime {
    /// Counts from now.
    pub fn start() -> WebRuntime {
        WebRuntime {
            origin: web_time::Instant::now(),
        }
    }
}

impl Runtime for WebRuntime {
    fn moment(&self) -> Moment {
        Moment {
            mono_ms: self.origin.elapsed().as_millis() as u64,
            wall_ms: wall_ms(),
            // jitter and salts only need to differ: a failing source is no
            // reason to stop
            entropy: random_u64().unwrap_or_default(),
        }
    }

    fn sleep(&self, ms: u64) -> BoxFuture<'static, ()> {
        Box::pin(Sleep::new(ms))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        wasm_bindgen_futures::spawn_local(task);
    }
}

/// A timer; dropped, it is cleared.
struct Sleep {
    state: Rc<RefCell<State>>,
    id: JsValue,
    _callback: Closure<dyn FnMut()>,
}

#[derive(Default)]
struct State {
    fired: bool,
    waker: Option<Waker>,
}

impl Sleep {
    fn new(ms: u64) -> Sleep {
        let state: Rc<RefCell<State>> = Rc::default();
        let callback = {
            let state = state.clone();
            Closure::new(move || {
                let waker = {
                    let mut state = state.borrow_mut();
                    state.fired = true;
                    state.waker.take()
                };
                if let Some(waker) = waker {
                    waker.wake();
                }
            })
        };
        let id = set_timeout(&callback, ms.min(LONGEST_MS) as f64);
        Sleep {
            state,
            id,
            _callback: callback,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        if state.fired {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        clear_timeout(&self.id);
    }
}
