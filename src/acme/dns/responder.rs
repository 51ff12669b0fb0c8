//! Answers the challenges of an order by TXT records.

use std::sync::{Mutex, PoisonError};

use instant_acme::{ChallengeType, KeyAuthorization};
use tokio::time::Instant;

use super::DnsPublisher;
use crate::acme::wanted::Responder;

/// Publishes an answer to each challenge of one order.
pub(in crate::acme) struct DnsResponder<'a> {
    publisher: &'a DnsPublisher,
    /// Names and values.
    offered: Mutex<Vec<(String, String)>>,
}

impl<'a> DnsResponder<'a> {
    pub(in crate::acme) fn new(publisher: &'a DnsPublisher) -> Self {
        Self { publisher, offered: Mutex::default() }
    }

    fn offered(&self) -> Vec<(String, String)> {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Responder for DnsResponder<'_> {
    fn challenge(&self) -> ChallengeType {
        ChallengeType::Dns01
    }

    async fn offer(&self, name: &str, answer: &KeyAuthorization) -> Result<(), String> {
        let value = answer.dns_value();
        // First: a failure may come after the record was published.
        self.offered.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), value.clone()));
        self.publisher.publish(name, &value).await
    }

    async fn settle(&self) -> Result<(), String> {
        let deadline = Instant::now() + self.publisher.propagation;
        for (name, value) in self.offered() {
            self.publisher.wait_until(deadline, &name, &value).await?;
        }
        Ok(())
    }

    async fn withdraw(&self) {
        for (name, value) in self.offered() {
            // A record that stays does no harm: each order has another value.
            if let Err(error) = self.publisher.remove(&name, &value).await {
                tracing::debug!("{error}");
            }
        }
        self.offered.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
