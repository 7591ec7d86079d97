//! Fetches published catalogs as they age. What is sound is put beside the ledger, where the watch over files finds it
//! and has it taken over; what is suspicious is not, and says why.

use super::state::State;
use crate::config::Published;
use crate::price::import::{check_change, import, lost_many};
use crate::price::{CATALOG_BYTES_MAX, Catalog};
use reqwest::header::{ETAG, IF_NONE_MATCH};
use reqwest::{Client, StatusCode, redirect};
use std::collections::HashMap;
use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// For a whole catalog.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// After a failure; a catalog that was refused is not asked for more often either.
const RETRY: Duration = Duration::from_secs(60);

/// What came.
enum Fetched {
    /// There is nothing newer.
    Same,
    Newer(String, String),
}

/// When each catalog is asked for again.
#[derive(Default)]
pub struct Fetching {
    next: HashMap<String, Instant>,
}

impl Fetching {
    /// Starts to fetch what has aged. Called every now and then, from a runtime that stays.
    pub fn run(&mut self, state: &Arc<State>) {
        let config = state.config();
        for published in &config.published {
            let next = self.next.get(&published.url).copied();
            if next.is_some_and(|next| Instant::now() < next) || (next.is_none() && is_fresh(published)) {
                continue;
            }
            // A fetch that fails is tried again sooner; one that goes well makes the file young.
            self.next.insert(published.url.clone(), Instant::now() + published.every.min(RETRY));
            if !is_fresh(published) {
                let (state, published) = (state.clone(), published.clone());
                tokio::spawn(async move { refresh(&state, &published).await });
            }
        }
    }
}

fn is_fresh(published: &Published) -> bool {
    let age = published.cache.time().and_then(|time| SystemTime::now().duration_since(time).ok());
    age.is_some_and(|age| age < published.every)
}

async fn refresh(state: &Arc<State>, published: &Published) {
    let fetched = fetch(&published.url, published.cache.tag().as_deref()).await;
    let (prices, source) = (state.config().prices.clone(), published.clone());
    let done = match fetched {
        Ok(fetched) => {
            tokio::task::spawn_blocking(move || keep(&source, fetched, &prices)).await.unwrap_or_else(|_| Err("failed".to_owned()))
        }
        Err(why) => Err(why),
    };
    state.metrics.prices(published.format.name(), done.is_ok());
    match done {
        Ok(true) => log::warn!("prices of {} were fetched", published.format.name()),
        Ok(false) => {}
        Err(why) => log::error!("prices of {}: {why}; those in use stay", published.url),
    }
}

/// Puts what came where it is looked for. True if it is new.
fn keep(published: &Published, fetched: Fetched, prices: &Catalog) -> Result<bool, String> {
    let told = |error: std::io::Error| format!("{}: {error}", published.cache.path().display());
    let (text, tag) = match fetched {
        Fetched::Same => return published.cache.asked(&published.cache.tag().unwrap_or_default()).map(|()| false).map_err(told),
        Fetched::Newer(text, tag) => (text, tag),
    };
    let imported = import(published.format, &text)?;
    if !published.trusted {
        check_change(prices, &imported)?;
        let before = published.cache.read().ok().flatten().and_then(|text| import(published.format, &text).ok());
        if before.is_some_and(|before| lost_many(&before, &imported)) {
            return Err("more than a fifth of the models that were there are gone".to_owned());
        }
    }
    if published.cache.read().ok().flatten().as_ref() == Some(&text) {
        return published.cache.asked(&tag).map(|()| false).map_err(told);
    }
    published.cache.put(&text, &tag).map(|()| true).map_err(told)
}

async fn fetch(url: &str, tag: Option<&str>) -> Result<Fetched, String> {
    let told = |error: reqwest::Error| error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
    let client = Client::builder().timeout(FETCH_TIMEOUT).redirect(redirect::Policy::none()).build().map_err(told)?;
    let mut request = client.get(url);
    if let Some(tag) = tag.filter(|tag| !tag.is_empty()) {
        request = request.header(IF_NONE_MATCH, tag);
    }
    let mut response = request.send().await.map_err(told)?;
    match response.status() {
        StatusCode::NOT_MODIFIED => return Ok(Fetched::Same),
        StatusCode::OK => {}
        status => return Err(format!("answered {status}")),
    }
    let tag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok()).unwrap_or_default().to_owned();
    let mut body = vec![];
    while let Some(chunk) = response.chunk().await.map_err(told)? {
        if (body.len() + chunk.len()) as u64 > CATALOG_BYTES_MAX {
            return Err(format!("larger than {CATALOG_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    String::from_utf8(body).map(|text| Fetched::Newer(text, tag)).map_err(|_| "not text".to_owned())
}

/// Fetches a catalog once, for the command line.
///
/// # Errors
/// Says what went wrong.
pub fn fetch_once(url: &str) -> Result<String, String> {
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    match runtime.block_on(fetch(url, None))? {
        Fetched::Newer(text, _) => Ok(text),
        Fetched::Same => Err("nothing was sent".to_owned()),
    }
}
