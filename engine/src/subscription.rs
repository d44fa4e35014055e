//! Subscriptions: something that is watched, as documents that wait until they are taken.
//!
//! A [`Feed`] is the source's side. It remembers its last document, so that a new subscription starts with how things are.
//! Who takes slowly loses the oldest documents and is told how many: the next one has `dropped`. Waiting for readiness
//! consumes nothing, taking never waits.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::Notify;

/// What is given to those who subscribe.
pub type Document = Map<String, Value>;

/// Documents that may wait in one subscription.
const WAITING: usize = 256;

/// Where documents come from.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    state: Mutex<FeedState>,
}

#[derive(Debug, Default)]
struct FeedState {
    last: Option<Document>,
    inboxes: Vec<Weak<Inbox>>,
    ended: bool,
}

impl Feed {
    /// Gives a document to everybody.
    pub(crate) fn publish(&self, document: Document) {
        let mut state = self.state.lock();
        state.inboxes.retain(|inbox| match inbox.upgrade() {
            Some(inbox) => {
                inbox.put(document.clone());
                true
            }
            None => false,
        });
        state.last = Some(document);
    }

    /// Nothing will come any more.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        for inbox in state.inboxes.drain(..).filter_map(|inbox| inbox.upgrade()) {
            inbox.end();
        }
    }

    /// Everything from now on; first the last document, if there is one.
    pub(crate) fn subscribe(&self) -> Subscription {
        let inbox = Arc::new(Inbox::default());
        let mut state = self.state.lock();
        if let Some(last) = &state.last {
            inbox.put(last.clone());
        }
        if state.ended {
            inbox.end();
        } else {
            state.inboxes.push(Arc::downgrade(&inbox));
        }
        Subscription { inbox }
    }
}

#[derive(Debug, Default)]
struct Inbox {
    state: Mutex<InboxState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct InboxState {
    documents: VecDeque<Document>,
    dropped: u64,
    ended: bool,
}

impl Inbox {
    fn put(&self, document: Document) {
        let mut state = self.state.lock();
        if state.documents.len() == WAITING {
            state.documents.pop_front();
            state.dropped += 1;
        }
        state.documents.push_back(document);
        drop(state);
        self.changed.notify_waiters();
    }

    fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_waiters();
    }

    fn is_ready(&self) -> bool {
        let state = self.state.lock();
        state.ended || !state.documents.is_empty()
    }
}

/// What was taken.
#[derive(Debug, Clone, PartialEq)]
pub enum Taken {
    /// The next document.
    Document(Document),
    /// There is none now.
    Empty,
    /// There is none, and there will be none.
    End,
}

/// Documents about something that is watched. Dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    inbox: Arc<Inbox>,
}

impl Subscription {
    /// Completes as soon as [`Subscription::take`] would not say [`Taken::Empty`]. Any number may wait.
    pub fn ready(&self) -> impl Future<Output = ()> + Send + use<> {
        let inbox = Arc::clone(&self.inbox);
        async move {
            loop {
                let mut changed = pin!(inbox.changed.notified());
                // Before looking: what comes after the look is not missed.
                changed.as_mut().enable();
                if inbox.is_ready() {
                    return;
                }
                changed.await;
            }
        }
    }

    /// Takes the next document, without waiting.
    pub fn take(&self) -> Taken {
        let mut state = self.inbox.state.lock();
        match state.documents.pop_front() {
            Some(mut document) => {
                let dropped = std::mem::take(&mut state.dropped);
                if dropped > 0 {
                    document.insert("dropped".to_owned(), dropped.into());
                }
                Taken::Document(document)
            }
            None if state.ended => Taken::End,
            None => Taken::Empty,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn number(value: u64) -> Document {
        [("number".to_owned(), Value::from(value))].into_iter().collect()
    }

    fn taken(subscription: &Subscription) -> Value {
        match subscription.take() {
            Taken::Document(document) => Value::Object(document),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_starts_with_the_last_document_and_ends_after_all_of_them() {
        let feed = Feed::default();
        assert_eq!(feed.subscribe().take(), Taken::Empty);
        feed.publish(number(1));
        feed.publish(number(2));
        let subscription = feed.subscribe();
        feed.publish(number(3));
        feed.end();
        assert_eq!(taken(&subscription)["number"], 2);
        assert_eq!(taken(&subscription)["number"], 3);
        assert_eq!(subscription.take(), Taken::End);
        let late = feed.subscribe();
        assert_eq!(taken(&late)["number"], 3);
        assert_eq!(late.take(), Taken::End);
    }

    #[test]
    fn ready_completes_while_something_is_there_and_consumes_nothing() {
        let feed = Feed::default();
        let subscription = feed.subscribe();
        let mut waiting = Box::pin(subscription.ready());
        assert!(waiting.as_mut().now_or_never().is_none());
        feed.publish(number(1));
        assert!(waiting.now_or_never().is_some());
        assert!(subscription.ready().now_or_never().is_some());
        assert_eq!(taken(&subscription)["number"], 1);
        assert!(subscription.ready().now_or_never().is_none());
        feed.end();
        assert!(subscription.ready().now_or_never().is_some());
    }

    #[test]
    fn who_takes_slowly_loses_the_oldest_and_is_told() {
        let feed = Feed::default();
        let subscription = feed.subscribe();
        let all = WAITING as u64 + 7;
        (0..all).for_each(|value| feed.publish(number(value)));
        let first = taken(&subscription);
        assert_eq!((&first["number"], &first["dropped"]), (&Value::from(7), &Value::from(7)));
        for value in 8..all {
            assert_eq!(taken(&subscription), Value::Object(number(value)));
        }
        assert_eq!(subscription.take(), Taken::Empty);
    }

    #[test]
    fn a_dropped_subscription_is_forgotten() {
        let feed = Feed::default();
        drop(feed.subscribe());
        feed.publish(number(1));
        assert!(feed.state.lock().inboxes.is_empty());
    }
}
