//! Each event once, in the background, in the order of arrival.

use std::collections::{HashSet, VecDeque};
use std::sync::Mutex;

use serde_json::Value;
use tokio::sync::mpsc::{Receiver, Sender};

pub const MAX_IDS: usize = 10_000;
pub const MAX_WAITING: usize = 1_000;

pub type Event = (String, Value);

#[derive(Default)]
struct Seen {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

pub struct Inbox {
    waiting: Sender<Event>,
    seen: Mutex<Seen>,
    processed: Mutex<VecDeque<String>>,
}

impl Inbox {
    pub fn new(waiting: Sender<Event>) -> Self {
        Self { waiting, seen: Mutex::default(), processed: Mutex::default() }
    }

    /// False when there is no room: the sender must come again.
    pub fn take(&self, (id, event): Event) -> bool {
        let mut seen = self.seen.lock().unwrap();
        if seen.ids.contains(&id) {
            eprintln!("repeated {id}");
            return true;
        }
        if self.waiting.try_send((id.clone(), event)).is_err() {
            return false;
        }
        seen.ids.insert(id.clone());
        seen.order.push_back(id);
        if seen.order.len() > MAX_IDS {
            if let Some(oldest) = seen.order.pop_front() {
                seen.ids.remove(&oldest);
            }
        }
        true
    }

    /// Handles what was taken, one after the other, for ever.
    pub async fn work(
        &self,
        mut waiting: Receiver<Event>,
        handle: impl AsyncFn(&str, Value) -> Result<(), String>,
    ) {
        while let Some((id, event)) = waiting.recv().await {
            if let Err(error) = handle(&id, event).await {
                eprintln!("failed {id}: {error}");
            }
            let mut processed = self.processed.lock().unwrap();
            processed.push_back(id);
            if processed.len() > MAX_IDS {
                processed.pop_front();
            }
        }
    }

    pub fn processed(&self) -> Vec<String> {
        self.processed.lock().unwrap().iter().cloned().collect()
    }
}
