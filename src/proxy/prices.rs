//! Fetches published catalogs as they age. What is sound is put beside the ledger, where the watch over files finds it
//! and has it taken over; what is suspicious is not, and says why.

use super::state::State;
use crate::config::Published;
use crate::price::import::{check_change, import, lay_over, lost_many};
use crate::price::{CATALOG_BYTES_MAX, embedded};
use reqwest::header::{ETAG, IF_NONE_MATCH};
use reqwest::{Client, StatusCode, redirect};
use std::collections::HashMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// For a whole catalog.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// After a publisher did not answer.
const RETRY: Duration = Duration::from_secs(60);

/// What came.
enum Fetched {
    /// There is nothing newer.
    Same,
    Newer(String, String),
}

/// When each catalog is asked for again.
#[derive(Clone, Default)]
pub struct Fetching {
    next: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Fetching {
    /// Starts to fetch what has aged. Called every now and then, from a runtime that stays.
    pub fn run(&self, state: &Arc<State>) {
        let config = state.config();
        for published in &config.published {
            let due = self.next(&published.url, None).is_none_or(|next| Instant::now() >= next);
            if !due || is_fresh(published) {
                continue;
            }
            self.next(&published.url, Some(FETCH_TIMEOUT * 2));
            let (fetching, state, published) = (self.clone(), state.clone(), published.clone());
            tokio::spawn(async move {
                // What was refused will be the same in a minute; who was out may be back.
                let pause = if refresh(&state, &published).await { published.every } else { published.every.min(RETRY) };
                fetching.next(&published.url, Some(pause));
            });
        }
    }

    /// When it is asked for again; told anew by `after`.
    fn next(&self, url: &str, after: Option<Duration>) -> Option<Instant> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        match after {
            Some(after) => next.insert(url.to_owned(), Instant::now() + after),
            None => next.get(url).copied(),
        }
    }
}

fn is_fresh(published: &Published) -> bool {
    let age = published.cache.time().and_then(|time| SystemTime::now().duration_since(time).ok());
    age.is_some_and(|age| age < published.every)
}

/// True if the publisher answered, whatever was thought of it.
async fn refresh(state: &Arc<State>, published: &Published) -> bool {
    let fetched = fetch(&published.url, published.cache.tag().as_deref()).await;
    let (source, answered) = (published.clone(), fetched.is_ok());
    let done = match fetched {
        Ok(fetched) => tokio::task::spawn_blocking(move || keep(&source, fetched)).await.unwrap_or_else(|_| Err("failed".to_owned())),
        Err(why) => Err(why),
    };
    let name = published.format.name();
    state.metrics.prices(name, done.is_ok());
    match done {
        Ok(true) => log::info!("prices of {name} were fetched"),
        Ok(false) => {}
        Err(why) => log::error!("prices of {name}: {why}; those in use stay"),
    }
    answered
}

/// Puts what came where it is looked for. True if it is new.
fn keep(published: &Published, fetched: Fetched) -> Result<bool, String> {
    let told = |error: std::io::Error| format!("{}: {error}", published.cache.path().display());
    let (text, tag) = match fetched {
        Fetched::Same => return published.cache.asked(&published.cache.tag().unwrap_or_default()).map(|()| false).map_err(told),
        Fetched::Newer(text, tag) => (text, tag),
    };
    let imported = import(published.format, &text)?;
    if !published.trusted {
        // Against what was there before the operator's own files, which may well differ.
        let mut known = embedded().map_err(|_| "the embedded prices cannot be read".to_owned())?;
        if let Some(before) = published.cache.read().ok().flatten().and_then(|text| import(published.format, &text).ok()) {
            if lost_many(&before, &imported) {
                return Err("more than a fifth of the models that were there are gone".to_owned());
            }
            lay_over(&mut known, before);
        }
        check_change(&known, &imported)?;
    }
    if published.cache.read().ok().flatten().as_ref() == Some(&text) {
        return published.cache.asked(&tag).map(|()| false).map_err(told);
    }
    published.cache.put(&text, &tag).map(|()| true).map_err(told)
}

async fn fetch(url: &str, tag: Option<&str>) -> Result<Fetched, String> {
    // An address may hold a key.
    let told = |error: reqwest::Error| {
        let error = error.without_url();
        error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
    };
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
