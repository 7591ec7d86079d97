//! Which ways are open to a gateway key.

use crate::config::{Config, Upstream};
use crate::error::Error;
use crate::keys::Key;
use crate::route::{Head, Route, Target};
use http::Method;

/// May this key go this way? What a path of the allow-list does with models nobody knows; reading does nothing.
pub(super) fn permit(key: &Key, route: &Route, config: &Config, head: &Head<'_>) -> Result<(), Error> {
    let upstream = config.upstreams.get(route.upstream).ok_or(Error::Internal)?;
    match route.target {
        Target::Endpoint(_) => key.allows(&upstream.name, &route.model_requested, &route.model),
        Target::Kept => key.allows_provider(&upstream.name),
        Target::Pass if key.models.is_empty() || reads_models(route, upstream, head) => key.allows_provider(&upstream.name),
        Target::Pass => Err(Error::NotAllowed { path: head.path.to_owned() }),
    }
}

/// Lists of models are for everyone; files and jobs may be of others, and answer for models that are not allowed.
fn reads_models(route: &Route, upstream: &Upstream, head: &Head<'_>) -> bool {
    let below = route.path.strip_prefix(upstream.base_path.as_str()).unwrap_or_default();
    head.method == Method::GET && (below == "/models" || below.starts_with("/models/"))
}
