//! What the peer does with the next calls instead of what is right, and what
//! it saw.

use super::refusal::Refusal;
use crate::oracle::Code;
use crate::schema::v1;
use prost::Message as _;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Replaces one message of an answer by others.
pub type Rewrite = Arc<dyn Fn(usize, Vec<u8>) -> Vec<Vec<u8>> + Send + Sync>;

/// Replaces the message of an answer, looking at the request.
pub type Reply = Arc<dyn Fn(&[u8], Vec<u8>) -> Vec<u8> + Send + Sync>;

/// Looks at a request.
pub type Judge = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// A deviation.
#[derive(Clone)]
pub enum Action {
    /// None: answers properly.
    Pass,
    /// Answers properly, but late.
    Delay(Duration),
    /// Refuses.
    Refuse(Refusal),
    /// Refuses the calls whose request is judged so; answers the others.
    RefuseIf(Judge, Refusal),
    /// Refuses with a status that does not go with the reason.
    RefuseAs(Code, Refusal),
    /// Answers with an HTTP status and an HTML page, as a proxy does.
    Html(u16),
    /// Breaks the call off before anything is done.
    Reset,
    /// Does what is asked, and breaks the call off before the answer.
    CommitThenReset,
    /// Never answers.
    Silent,
    /// Breaks the call off after that many messages.
    BreakAfter(usize),
    /// Ends the call in good order after that many messages, so that the last
    /// ones (StreamEnd) never come.
    EndAfter(usize),
    /// Sends half a frame after that many messages, and then trailers.
    HalfFrameAfter(usize),
    /// Ends the call without trailers after all messages.
    NoTrailers,
    /// Sends everything in pieces of a few bytes, so that frames, lengths and
    /// trailers are torn apart.
    Drip,
    /// Sends trailers that say the same in another way: names in capitals where
    /// that is allowed, blanks, other fields, in another order.
    OddTrailers,
    /// Sends each message twice.
    Twice,
    /// Sends the second message before the first, the fourth before the third.
    Swapped,
    /// Sends no more after that many messages, and leaves the call open.
    StallAfter(usize),
    /// Sets an unknown flag on each frame.
    OddFlag,
    /// Rewrites each message; `usize` is its index in the answer.
    Rewrite(Rewrite),
    /// Rewrites each message by the request.
    Reply(Reply),
    /// Announces a message of 4 GiB, and sends of it until the caller goes away.
    Endless,
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Pass => f.write_str("pass"),
            Action::Delay(d) => write!(f, "delay by {d:?}"),
            Action::Refuse(r) => write!(f, "refuse with {}", r.reason),
            Action::RefuseIf(_, r) => write!(f, "refuse some with {}", r.reason),
            Action::RefuseAs(code, r) => write!(f, "refuse with {} and {code:?}", r.reason),
            Action::Html(status) => write!(f, "HTTP {status} with a page"),
            Action::Reset => f.write_str("reset"),
            Action::CommitThenReset => f.write_str("commit, then reset"),
            Action::Silent => f.write_str("silent"),
            Action::BreakAfter(n) => write!(f, "break after {n} messages"),
            Action::EndAfter(n) => write!(f, "end after {n} messages"),
            Action::HalfFrameAfter(n) => write!(f, "half a frame after {n} messages"),
            Action::NoTrailers => f.write_str("no trailers"),
            Action::Drip => f.write_str("everything in pieces of a few bytes"),
            Action::OddTrailers => f.write_str("odd trailers"),
            Action::Twice => f.write_str("every message twice"),
            Action::Swapped => f.write_str("messages in another order"),
            Action::StallAfter(n) => write!(f, "nothing more after {n} messages"),
            Action::OddFlag => f.write_str("odd frame flags"),
            Action::Rewrite(_) | Action::Reply(_) => f.write_str("rewritten messages"),
            Action::Endless => f.write_str("an endless message"),
        }
    }
}

/// Deviations in the order in which they are used up: a call takes the first
/// one for its method.
#[derive(Default, Debug)]
pub struct Script {
    steps: VecDeque<(String, Action)>,
    maybe: VecDeque<(String, Action)>,
    always: Vec<(String, Action)>,
}

impl Script {
    /// The next call of `method` deviates so.
    pub fn next(&mut self, method: &str, action: Action) {
        self.steps.push_back((method.to_owned(), action));
    }

    /// As [`Script::next`], but whoever never makes such a call is free to: the
    /// step comes after all others, and may be left over.
    pub fn if_called(&mut self, method: &str, action: Action) {
        self.maybe.push_back((method.to_owned(), action));
    }

    /// Every call of `method` for which there is no step deviates so.
    pub fn always(&mut self, method: &str, action: Action) {
        self.always.retain(|(m, _)| m != method);
        self.always.push((method.to_owned(), action));
    }

    /// Forgets all deviations.
    pub fn clear(&mut self) {
        self.steps.clear();
        self.maybe.clear();
        self.always.clear();
    }

    /// What to do with a call of `method`.
    pub fn take(&mut self, method: &str) -> Action {
        for steps in [&mut self.steps, &mut self.maybe] {
            if let Some(at) = steps.iter().position(|(m, _)| m == method)
                && let Some((_, action)) = steps.remove(at)
            {
                return action;
            }
        }
        self.always
            .iter()
            .find(|(m, _)| m == method)
            .map_or(Action::Pass, |(_, a)| a.clone())
    }

    /// The steps that were not used, for people.
    pub fn left(&self) -> Vec<String> {
        let step = |(method, action): &(String, Action)| format!("{method}: {action:?}");
        self.steps.iter().map(step).collect()
    }
}

/// A call that the peer received.
#[derive(Clone, Debug)]
pub struct Seen {
    /// "Push".
    pub method: String,
    /// Request headers.
    pub headers: Vec<(String, String)>,
    /// The request message.
    pub message: Vec<u8>,
    /// What was wrong with the request on the wire.
    pub problems: Vec<String>,
    /// The messages that were sent.
    pub answers: Vec<Vec<u8>>,
    /// The deviation, and how the call ended.
    pub end: String,
    /// Since the peer was made.
    pub at: Duration,
}

impl Seen {
    /// How a call ends that has not ended.
    pub(super) const UNDER_WAY: &str = "under way";

    /// Whether it was not over yet.
    pub fn is_under_way(&self) -> bool {
        self.end == Seen::UNDER_WAY
    }

    /// The `held` of a request that has one.
    pub fn held(&self) -> Vec<v1::HeldRanges> {
        let message = self.message.as_slice();
        match self.method.as_str() {
            "Hello" => v1::HelloRequest::decode(message).map(|r| r.held),
            "Push" => v1::PushRequest::decode(message).map(|r| r.held),
            "Watch" => v1::WatchRequest::decode(message).map(|r| r.held),
            "Snapshot" => v1::SnapshotRequest::decode(message).map(|r| r.held),
            _ => v1::ReconcileRequest::decode(message).map(|r| r.held),
        }
        .unwrap_or_default()
    }

    /// A request header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_used_up_by_method_and_then_the_rest_applies() {
        let mut script = Script::default();
        script.always("Push", Action::Silent);
        script.next("Push", Action::Reset);
        script.next("Hello", Action::Html(503));
        assert!(matches!(script.take("Hello"), Action::Html(503)));
        assert!(matches!(script.take("Hello"), Action::Pass));
        assert!(matches!(script.take("Push"), Action::Reset));
        assert!(matches!(script.take("Push"), Action::Silent));
        assert_eq!(script.left(), [""; 0]);
    }
}
