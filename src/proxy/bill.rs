//! `GET /usage/requests/{id}` beside the endpoints of providers: what a request cost, for who made it.

use crate::config::Config;
use crate::error::Error;
use crate::keys::Caller;
use crate::route::Head;
use crate::sink::report::{BILL, bill, request};
use bytes::Bytes;
use http::Method;
use tokio::sync::Semaphore;

/// Bills that are looked up at once, in one process; whoever comes later waits. Without a database a lookup reads the ledger, and
/// callers must not be able to keep more than these busy with that.
const LOOKUPS_MAX: usize = 2;
static LOOKUPS: Semaphore = Semaphore::const_new(LOOKUPS_MAX);

/// The id of the request whose bill is asked for, unless a provider is called like that.
pub fn asked<'h>(head: &Head<'h>, config: &Config) -> Option<&'h str> {
    let id = head.path.strip_prefix(BILL).filter(|_| head.method == Method::GET && config.upstream("usage").is_none())?;
    (!id.is_empty() && !id.contains('/')).then_some(id)
}

/// The attempts at a request, of the caller's own.
///
/// # Errors
/// [`Error::NotFound`], also for those of others.
pub async fn answer(config: &Config, id: &str, caller: Option<&Caller>) -> Result<Bytes, Error> {
    let (data, wanted) = (config.data.clone(), id.to_owned());
    let _turn = LOOKUPS.acquire().await.map_err(|_| Error::Internal)?;
    let found = tokio::task::spawn_blocking(move || request(&data, &wanted)).await.map_err(|_| Error::Internal)?;
    let mut entries = found.map_err(|why| {
        log::error!("usage: {why}");
        Error::Internal
    })?;
    let key = caller.map(|caller| caller.key.id.as_str());
    entries.retain(|entry| key.is_none() || entry.open.key.as_deref() == key);
    if entries.is_empty() {
        return Err(Error::NotFound { path: format!("{BILL}{id}") });
    }
    Ok(bill(id, &entries).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::time::Duration;

    #[tokio::test]
    async fn only_so_many_are_looked_up_at_once() {
        let data = tempfile::tempdir().unwrap();
        let mut config = config::load(&config::Source::Embedded, &|_| None).unwrap();
        config.data = data.path().to_owned();
        std::fs::create_dir(data.path().join("ledger")).unwrap();
        let mut turns = LOOKUPS.acquire_many(LOOKUPS_MAX as u32).await.unwrap();
        let mut one_more = std::pin::pin!(answer(&config, "x", None));
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut one_more).await.is_err());
        drop(turns.split(1));
        assert_eq!(one_more.await, Err(Error::NotFound { path: "/usage/requests/x".to_owned() }));
    }
}
