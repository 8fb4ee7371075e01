//! What makes the controller look at a pair, beside changes of the pair itself.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures::channel::mpsc;
use kube::runtime::reflector::ObjectRef;
use pgpair_api::names::PairName;

use crate::watched::Watched;

/// Where changes are announced.
#[derive(Debug, Clone)]
pub struct Triggers {
    queue: mpsc::UnboundedSender<ObjectRef<Watched>>,
    touched: Arc<Mutex<HashSet<PairName>>>,
}

impl Triggers {
    /// And where they come out. The controller makes one look of many changes of a pair within a moment.
    #[must_use]
    pub fn new() -> (Triggers, mpsc::UnboundedReceiver<ObjectRef<Watched>>) {
        let (queue, triggered) = mpsc::unbounded();
        (Triggers { queue, touched: Arc::default() }, triggered)
    }

    /// There is something new about `pair`.
    pub fn announce(&self, pair: &PairName) {
        // Fails only when the controller has ended; then nobody has to know.
        let _ = self.queue.unbounded_send(ObjectRef::new(&pair.name).within(&pair.namespace));
    }

    /// An object of `pair` has changed: somebody may have changed what it should be.
    pub fn announce_object(&self, pair: PairName) {
        self.announce(&pair);
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).insert(pair);
    }

    /// Whether an object of `pair` has changed since the last time that this was asked.
    #[must_use]
    pub fn take_touched(&self, pair: &PairName) -> bool {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).remove(pair)
    }
}
