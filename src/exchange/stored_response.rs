//! Answers that a provider keeps: each belongs to who asked for it, at the account that gave it. What is asked of one
//! goes there and nowhere else; one that is made in the background is billed when its usage is known, whoever fetches it.
//! <https://platform.openai.com/docs/guides/background>

use super::batch::derived_id;
use super::settle::{Buyer, Terms};
use super::{Asked, Closed, Exchange, UnixMs, credential_hash};
use crate::config::{Config, Upstream};
use crate::dialect::{Dialect, Endpoint};
use crate::error::Error;
use crate::keys::Key;
use crate::ledger::Open;
use crate::meter::Found;
use crate::route::{Destination, Head, Target};
use http::Method;
use std::fmt;
use std::sync::Arc;

/// An answer or a conversation that a provider keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// The provider's.
    pub id: String,
    pub upstream: String,
    /// The gateway's key that asked for it, or a hash of the caller's own; `None`: whoever could ask then.
    pub owner: Option<String>,
    /// Made in the background, and not billed yet: what was asked.
    pub pending: Option<Box<Open>>,
}

impl StoredObject {
    /// One that nothing is to be billed for.
    pub(super) fn owned(id: String, upstream: &str, owner: Option<&str>) -> Self {
        Self { id, upstream: upstream.to_owned(), owner: owner.map(str::to_owned), pending: None }
    }
}

/// Remembers them.
pub trait ObjectStore: Send + Sync {
    /// # Errors
    /// [`Error::AnswersUnknown`] if who may know one cannot be asked.
    fn find(&self, id: &str) -> Result<Option<StoredObject>, Error>;
}

/// Nobody, or who remembers.
#[derive(Clone, Default)]
pub struct StoreHandle(pub Option<Arc<dyn ObjectStore>>);

impl fmt::Debug for StoreHandle {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "StoreHandle({})", self.0.is_some())
    }
}

impl StoreHandle {
    pub(super) fn find(&self, id: &str) -> Result<Option<StoredObject>, Error> {
        self.0.as_ref().map_or(Ok(None), |keeper| keeper.find(id))
    }
}

/// What an exchange has to do with kept answers.
#[derive(Debug, Default)]
pub(super) struct StoredState {
    /// Made in the background.
    pub(super) background: bool,
    /// The conversation it belongs to.
    pub(super) conversation: Option<String>,
    /// The one it asks for or makes, if its bill is open.
    pub(super) pending: Option<StoredObject>,
    pub(super) remembered: bool,
    /// A chat completion that the provider stores, whose id is not known yet.
    pub(super) stores_chat: bool,
    /// It was remembered as yet to be billed.
    pub(super) owes: Option<String>,
}

/// The upstream that knows the answers a request names; `None` if it names none, or any will do.
///
/// # Errors
/// [`Error::UnknownAnswer`]: nobody knows one, or it is another caller's; [`Error::AnswersUnknown`].
pub(super) fn bound<'i>(
    ids: impl Iterator<Item = &'i str>,
    destination: &Destination,
    head: &Head<'_>,
    config: &Config,
    asked: &Asked,
) -> Result<(Option<usize>, Option<StoredObject>), Error> {
    let (mut bound, mut pending) = (None, None);
    for id in ids {
        let unknown = || Error::UnknownAnswer { id: id.to_owned() };
        let Some(kept) = asked.memory.find(id)? else {
            // Where everybody is one, it may have been made elsewhere.
            if asked.key.is_some() {
                return Err(unknown());
            }
            continue;
        };
        let at = config.upstream(&kept.upstream).ok_or_else(unknown)?;
        let upstream = config.upstreams.get(at).ok_or(Error::Internal)?;
        let elsewhere = bound.or(destination.mount()).is_some_and(|other| other != at);
        if elsewhere || kept.owner != owner(asked.key.as_deref(), upstream, head) {
            return Err(unknown());
        }
        bound = Some(at);
        // What follows an answer says nothing of what that cost.
        let itself = matches!(destination, Destination::Stored { .. });
        pending = Some(kept).filter(|kept| itself && kept.pending.is_some());
        if pending.is_some() && head.method == Method::DELETE {
            return Err(Error::UnbilledAnswer { id: id.to_owned() });
        }
    }
    Ok((bound, pending))
}

/// Whose what is made now will be.
pub(super) fn owner(key: Option<&Key>, upstream: &Upstream, head: &Head<'_>) -> Option<String> {
    key.map(|key| key.id.clone()).or_else(|| credential_hash(upstream, Dialect::Responses, head.headers))
}

impl Exchange {
    /// Answers that the provider keeps from now on, to be remembered; once.
    pub fn take_stored_responses(&mut self) -> Vec<StoredObject> {
        let mut stored = self.take_objects();
        stored.extend(self.take_stored_response());
        stored
    }

    fn take_stored_response(&mut self) -> Vec<StoredObject> {
        let answers = self.route.target == Target::Endpoint(Endpoint::Responses);
        let creates = self.route.target == Target::Stored && self.route.path.ends_with("/conversations");
        if !(answers || creates) || self.keeping.remembered {
            return vec![];
        }
        let meter = self.attempt.as_ref().filter(|attempt| attempt.status < 300).and_then(|attempt| attempt.meter.as_ref());
        let Some(found) = meter.map(|meter| meter.found()).filter(|found| !found.id.is_empty()) else { return vec![] };
        let pending = self.keeping.background && !found.has_usage() && found.error.is_none();
        let open = self.attempt.as_ref().filter(|_| pending).map(|attempt| Box::new(attempt.open.0.clone()));
        let (owner, upstream) = (self.owner(), self.upstream().map_or("", |upstream| upstream.name.as_str()));
        let stored = |id: &str| StoredObject::owned(id.to_owned(), upstream, owner.as_deref());
        let made = StoredObject { pending: open, ..stored(&found.id) };
        let list = std::iter::once(made.clone()).chain(self.keeping.conversation.as_deref().map(stored)).collect();
        self.keeping.remembered = true;
        if pending {
            (self.keeping.owes, self.keeping.pending) = (Some(made.id.clone()), Some(made));
        }
        list
    }

    /// The answer that is given, if it is made in the background: its bill is an entry of its own, here or elsewhere.
    pub fn owes(&self) -> Option<&str> {
        self.keeping.owes.as_deref()
    }

    /// Whose the answers to this caller are.
    pub(super) fn owner(&self) -> Option<String> {
        self.key.as_ref().map(|key| key.id.clone()).or_else(|| self.credential.clone())
    }

    /// Checks that a turn may continue the stored response or conversation of this id.
    ///
    /// # Errors
    /// [`Error::UnknownAnswer`] if it belongs to another client or upstream; [`Error::AnswersUnknown`].
    pub fn may_continue(&self, id: &str, store: &StoreHandle) -> Result<(), Error> {
        let here = |stored: &StoredObject| {
            stored.owner == self.owner() && self.upstream().is_some_and(|upstream| upstream.name == stored.upstream)
        };
        if store.find(id)?.as_ref().map_or(self.key.is_none(), here) { Ok(()) } else { Err(Error::UnknownAnswer { id: id.to_owned() }) }
    }

    /// What remains to be paid for an answer made in the background, now that it was fetched, or streamed to its end, and
    /// says so: its id, and an entry to be written before the chunk leaves.
    pub fn background_bill(&mut self, now: UnixMs) -> Option<(String, Closed)> {
        let attempt = self.attempt.as_ref().filter(|attempt| attempt.body_ended && attempt.status < 300)?;
        let found = attempt.meter.as_ref()?.found();
        if !found.has_usage() || !(found.finished || found.ended) {
            return None;
        }
        if self.keeping.pending.as_ref().is_none_or(|kept| kept.id != found.id) {
            return None;
        }
        let kept = self.keeping.pending.take()?;
        let closed = bill(&kept, found, &self.config, now)?;
        Some((kept.id, closed))
    }
}

/// The entry of an answer that was made in the background. Its id follows from the answer, so that it is the same entry
/// whoever fetched it, and however often.
pub fn bill(kept: &StoredObject, found: &Found, config: &Config, now: UnixMs) -> Option<Closed> {
    let (open, at) = (kept.pending.as_deref()?, config.upstream(&kept.upstream)?);
    let upstream = config.upstreams.get(at)?;
    let model = upstream.priced_as(&open.model);
    let terms = Terms::new(upstream, Dialect::Responses, model, config, Buyer::who(open), now);
    Some(Closed::billed(entry_id(kept), open.clone(), found, &terms, now))
}

/// The entry of one of which nothing more can be learned.
pub fn lost(kept: &StoredObject, why: &str, now: UnixMs) -> Option<Closed> {
    Some(Closed::lost(entry_id(kept), kept.pending.as_deref()?.clone(), why, now))
}

fn entry_id(kept: &StoredObject) -> String {
    derived_id("answer", &kept.upstream, &kept.id, b"")
}
