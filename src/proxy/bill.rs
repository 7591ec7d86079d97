//! `GET /usage/requests/{id}` beside the endpoints of providers: what a request cost, for who made it.

use crate::config::Config;
use crate::error::Error;
use crate::keys::Caller;
use crate::route::Head;
use crate::sink::report::{BILL, bill, request};
use bytes::Bytes;
use http::Method;

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
