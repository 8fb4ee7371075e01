//! How far a base backup is, asked beside the reconciles.

use futures::FutureExt;
use pgpair_wire::seed::SeedProgress;
use tokio::task::JoinHandle;

use crate::agent_client::fetch_seed_progress;

/// Asks the pod of a seeding Job.
#[derive(Debug, Default)]
pub struct SeedEar {
    ip: String,
    question: Option<JoinHandle<Option<SeedProgress>>>,
    last: Option<SeedProgress>,
}

impl SeedEar {
    /// What the pod at `ip` said when it was asked at the look before; it is asked anew for the next one.
    pub fn hear(&mut self, ip: &str) -> Option<SeedProgress> {
        if self.ip != ip {
            *self = SeedEar { ip: ip.to_owned(), ..SeedEar::default() };
        }
        if let Some(question) = &mut self.question {
            // A pod that does not answer is asked once at a time.
            let Some(answer) = question.now_or_never() else { return self.last };
            self.last = answer.unwrap_or_default();
        }
        let ip = ip.to_owned();
        self.question = Some(tokio::spawn(async move { fetch_seed_progress(&ip).await.ok() }));
        self.last
    }
}
